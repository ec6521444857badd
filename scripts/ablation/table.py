"""Tables of an ablation: its arms, their differences, and which of them are larger than the noise."""

import csv
import io
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from datamodules.files.atomic_file import write_bytes
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import ABLATION, PICTURE, require_replaceable
from lightning_modules.classifier import MONITOR
from lightning_modules.network.model_size import format_size
from scripts.ablation.arms import Pair, spelled
from scripts.ablation.estimate import CONFIDENCE, Estimate, estimate
from scripts.ablation.outcomes import COMPARED, SUBJECT, Difference, Outcome, differences
from scripts.ablation.plot import ablation_png

RUNS_TABLE = "ablation_runs.csv"
DIGITS = {"NLL": 3, "ECE": 3, "s/epoch": 0}  # after the decimal point; 2 for other measures


def require_free(folder: Path, options: list[str]) -> None:
    """Raises ``UserError`` if ``folder`` holds the tables of other varied options, or files that are not tables."""
    tables = {"ablation.md": ABLATION, "ablation.csv": ABLATION, RUNS_TABLE: ABLATION, "ablation.png": PICTURE}
    for name, kind in tables.items():
        require_replaceable(folder / name, kind, "--name")
    with suppress(FileNotFoundError, StopIteration), open(folder / RUNS_TABLE, newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
        if {*options} != {*(earlier := header[: header.index("seed")])}:
            raise UserError(
                f"the table in {folder} varies {listed(earlier)}, not {listed(options)}: choose another --name"
            )


def write_tables(folder: Path, outcomes: list[Outcome], pairs: list[Pair], command: str) -> None:
    """Writes ``ablation.md``, which states ``command``, ``ablation.csv``, ``ablation_runs.csv``, ``ablation.png``."""
    arms: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        arms.setdefault(outcome.arm.name, []).append(outcome)
    summary = {
        name: {measure: estimate([run.measures[measure] for run in runs]) for measure in runs[0].measures}
        for name, runs in arms.items()
    }
    sizes = {name: runs[0].size_bytes for name, runs in arms.items()}
    compared = differences(outcomes, pairs)
    page = _markdown(outcomes, summary, sizes, compared, command)
    write_bytes(folder / "ablation.md", page.encode(errors="backslashreplace"))
    rows = [_summary_row(runs[0].arm.columns, summary[name], sizes[name]) for name, runs in arms.items()]
    write_bytes(folder / "ablation.csv", _csv(rows))
    rows = [{**o.arm.columns, "seed": o.seed, **o.measures, "size bytes": o.size_bytes} for o in outcomes]
    write_bytes(folder / RUNS_TABLE, _csv(rows))
    drawn = {name: ([o.measures[SUBJECT] for o in runs], summary[name][SUBJECT]) for name, runs in arms.items()}
    picture = ablation_png(SUBJECT, drawn, {difference.name: difference.estimates[SUBJECT] for difference in compared})
    write_bytes(folder / "ablation.png", picture)


def _all(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _cell(measure: str, value: Estimate) -> str:
    digits = DIGITS.get(measure, 2)
    if math.isnan(value.std) or measure == "s/epoch":
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} ± {value.std:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _difference_cell(measure: str, value: Estimate) -> str:
    digits = DIGITS.get(measure, 2)
    interval = "" if math.isnan(value.std) else f" [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"
    return f"{value.mean:+.{digits}f}{interval}"


def _markdown(
    outcomes: list[Outcome],
    summary: dict[str, dict[str, Estimate]],
    sizes: dict[str, int],
    compared: list[Difference],
    command: str,
) -> str:
    epochs = max(max(outcome.scalars[MONITOR]) for outcome in outcomes) + 1
    measures = list(outcomes[0].measures)
    same = all(outcome.data == outcomes[0].data for outcome in outcomes)
    images = "these validation images" if same else "the validation images that each seed holds out"
    counts = ", ".join(f"{facts['images']:,} {split}" for split, facts in outcomes[0].data.items())
    rows = [
        [name, *(_cell(measure, cell[measure]) for measure in measures), format_size(sizes[name])]
        for name, cell in summary.items()
    ]
    compared_rows = [[d.name, *(_difference_cell(m, d.estimates[m]) for m in COMPARED)] for d in compared]
    lines = [
        f"`{command}`",
        "",
        f"{len(outcomes)} runs of up to {epochs} epochs, seeds {_all(o.seed for o in outcomes)}; images: {counts}; "
        f"processes: {_all(o.processes for o in outcomes)}; torch {_all(o.torch_version for o in outcomes)}.",
        "",
        *_table(["", *measures, "size"], rows),
        "",
        *_legend(outcomes),
        'Mean ± standard deviation over seeds [95 % interval of the mean, Student\'s t]. All but "best epoch" are '
        "values of the last epoch; training accuracy is measured in training, on augmented images and with dropout. "
        "Balanced accuracy is the mean over classes; s/epoch is the median time of an epoch with validation, without "
        "saving.",
        "",
        _how_compared(compared),
        "",
        *_table(["", *COMPARED], compared_rows),
        "",
        *(f"- {difference.sentence}" for difference in compared),
        "",
        _chance(compared, images),
    ]
    return "\n".join(lines) + "\n"


def _legend(outcomes: list[Outcome]) -> list[str]:
    """Returns the lines that say what the arms are, where their names do not."""
    arms = {outcome.arm.name: outcome.arm for outcome in outcomes}
    if all(arm.columns == arm.options for arm in arms.values()):
        return []
    return [*(f"- {name}: {spelled(arm.options) or 'no options of its own'}" for name, arm in arms.items()), ""]


def _how_compared(compared: list[Difference]) -> str:
    if all(difference.is_paired for difference in compared):
        return "Differences, seed by seed, with the 95 % interval of their mean:"
    return (
        "Differences with the 95 % interval of their mean: seed by seed (Student's t), or unpaired where the arms have "
        "other seeds (Welch's t):"
    )


def _chance(compared: list[Difference], images: str) -> str:
    """Returns the sentence on what the intervals of accuracy may be taken for."""
    count = sum(not math.isnan(difference.estimates[SUBJECT].std) for difference in compared)
    if not count:
        return f"One run of each does not show the noise, so no interval can be given. All differences are on {images}."
    return (
        f"If no setting mattered, {(1 - CONFIDENCE) * count:.2g} of these {count} intervals of accuracy would still "
        f"exclude zero by chance. They reflect the noise between seeds, on {images}."
    )


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _summary_row(columns: dict[str, str], cell: dict[str, Estimate], size: int) -> dict[str, Any]:
    parts = ("mean", "std", "low", "high")
    numbers = {f"{measure} {part}": getattr(value, part) for measure, value in cell.items() for part in parts}
    return {**columns, **numbers, "size bytes": size}


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
