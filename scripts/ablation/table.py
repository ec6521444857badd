"""Tables of an ablation: its combinations, paired differences, and which of them are larger than the noise."""

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
from scripts.ablation.estimate import CONFIDENCE, Estimate, estimate
from scripts.ablation.outcomes import COMPARED, SUBJECT, Difference, Outcome, differences, spelled
from scripts.ablation.plot import ablation_png

RUNS_TABLE = "ablation_runs.csv"


def require_free(folder: Path, options: list[str]) -> None:
    """Raises ``UserError`` if ``folder`` holds the tables of other varied options, or files that are not tables."""
    tables = {"ablation.md": ABLATION, "ablation.csv": ABLATION, RUNS_TABLE: ABLATION, "ablation.png": PICTURE}
    for name, kind in tables.items():
        require_replaceable(folder / name, kind, "--name")
    with suppress(FileNotFoundError, StopIteration), open(folder / RUNS_TABLE, newline="") as file:
        header = next(csv.reader(file))
        if {*options} != {*(earlier := header[: header.index("seed")])}:
            raise UserError(
                f"the table in {folder} varies {listed(earlier)}, not {listed(options)}: choose another --name"
            )


def write_tables(folder: Path, outcomes: list[Outcome], command: str) -> None:
    """Writes ``ablation.md``, ``ablation.csv``, ``ablation_runs.csv`` and ``ablation.png``.

    Args:
        folder: Folder to write to.
        outcomes: Result of every combination with every seed.
        command: Command line that the table states.
    """
    cells: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        cells.setdefault(spelled(outcome.levels), []).append(outcome)
    summary = {
        name: {measure: estimate([run.measures[measure] for run in runs]) for measure in runs[0].measures}
        for name, runs in cells.items()
    }
    sizes = {name: runs[0].size_bytes for name, runs in cells.items()}
    compared = differences(outcomes)
    write_bytes(
        folder / "ablation.md", _markdown(outcomes, summary, sizes, compared, command).encode(errors="backslashreplace")
    )
    levels = {name: runs[0].levels for name, runs in cells.items()}
    write_bytes(folder / "ablation.csv", _csv([_summary_row(levels[n], summary[n], sizes[n]) for n in cells]))
    runs = [{**o.levels, "seed": o.seed, **o.measures, "size bytes": o.size_bytes} for o in outcomes]
    write_bytes(folder / RUNS_TABLE, _csv(runs))
    accuracies = {name: [run.measures[SUBJECT] for run in runs] for name, runs in cells.items()}
    write_bytes(
        folder / "ablation.png",
        ablation_png(
            SUBJECT,
            {name: (values, summary[name][SUBJECT]) for name, values in accuracies.items()},
            {difference.name: difference.estimates[SUBJECT] for difference in compared},
        ),
    )


def _all(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _digits(measure: str) -> int:
    return {"NLL": 3, "ECE": 3, "s/epoch": 0}.get(measure, 2)


def _cell(measure: str, value: Estimate) -> str:
    digits = _digits(measure)
    if math.isnan(value.std) or measure == "s/epoch":
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} ± {value.std:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _difference_cell(measure: str, value: Estimate) -> str:
    digits = _digits(measure)
    interval = "" if math.isnan(value.std) else f" [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"
    return f"{value.mean:+.{digits}f}{interval}"


def _markdown(
    outcomes: list[Outcome],
    summary: dict[str, dict[str, Estimate]],
    sizes: dict[str, int],
    compared: list[Difference],
    command: str,
) -> str:
    seeds = sorted({outcome.seed for outcome in outcomes})
    epochs = max(max(outcome.scalars[MONITOR]) for outcome in outcomes) + 1
    measures = list(outcomes[0].measures)
    same = all(outcome.data == outcomes[0].data for outcome in outcomes)
    images = "these validation images" if same else "the validation images that each seed holds out"
    lines = [
        f"`{command}`",
        "",
        f"{len(outcomes)} runs of up to {epochs} epochs, seeds {', '.join(map(str, seeds))}; images: "
        + ", ".join(f"{facts['images']:,} {split}" for split, facts in outcomes[0].data.items())
        + f"; processes: {_all(outcome.processes for outcome in outcomes)}"
        + f"; torch {_all(outcome.torch_version for outcome in outcomes)}.",
        "",
        *_table(
            ["", *measures, "size"],
            [
                [name, *(_cell(measure, cell[measure]) for measure in measures), format_size(sizes[name])]
                for name, cell in summary.items()
            ],
        ),
        "",
        'Mean ± standard deviation over seeds [95 % interval of the mean, Student\'s t]. All but "best epoch" are '
        "values of the last epoch; training accuracy is measured in training, on augmented images and with dropout. "
        "Balanced accuracy is the mean over classes; s/epoch is the median time of an epoch with validation, without "
        "saving.",
        "",
        "Differences, seed by seed, with the 95 % interval of their mean:",
        "",
        *_table(
            ["", *COMPARED],
            [[d.name, *(_difference_cell(measure, d.estimates[measure]) for measure in COMPARED)] for d in compared],
        ),
        "",
        *(f"- {difference.sentence}" for difference in compared),
        "",
        f"If no setting mattered, {(1 - CONFIDENCE) * len(compared):.2g} of these {len(compared)} intervals of "
        f"accuracy would still exclude zero by chance. They reflect the noise between seeds, on {images}.",
    ]
    return "\n".join(lines) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _summary_row(levels: dict[str, str], cell: dict[str, Estimate], size: int) -> dict[str, Any]:
    parts = ("mean", "std", "low", "high")
    numbers = {f"{measure} {part}": getattr(value, part) for measure, value in cell.items() for part in parts}
    return {**levels, **numbers, "size bytes": size}


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
