"""Tables of an ablation: its arms, their differences, and which of them are larger than the noise."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from callbacks.predictions.out_of_fold import OUT_OF_FOLD_TABLE, OutOfFold
from datamodules.files.atomic_file import write_bytes
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import ABLATION, PICTURE, require_replaceable
from lightning_modules.classifier import MONITOR
from lightning_modules.metrics.proportions import wilson_interval
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
        earlier = header[: header.index("seed")] + (["fold"] if "fold" in header else [])
        if {*options} != {*earlier}:
            raise UserError(
                f"the table in {folder} varies {listed(earlier)}, not {listed(options)}: choose another --name"
            )


def write_tables(
    folder: Path,
    outcomes: list[Outcome],
    pairs: list[Pair],
    command: str,
    answers: Mapping[str, OutOfFold] | None = None,
) -> None:
    """Writes ``ablation.md``, which states ``command``, ``ablation.csv``, ``ablation_runs.csv``, ``ablation.png``.

    Args:
        folder: Folder of the files.
        outcomes: The runs.
        pairs: Arms to compare.
        command: The command line.
        answers: What the runs of folds answer for their own fold, by the names of arms.
    """
    arms: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        arms.setdefault(outcome.arm.name, []).append(outcome)
    summary = {
        name: {measure: estimate([run.measures[measure] for run in runs]) for measure in runs[0].measures}
        for name, runs in arms.items()
    }
    sizes = {name: runs[0].size_bytes for name, runs in arms.items()}
    compared = differences(outcomes, pairs)
    page = _markdown(outcomes, summary, sizes, compared, command, answers or {})
    write_bytes(folder / "ablation.md", page.encode(errors="backslashreplace"))
    rows = [_summary_row(runs[0].arm.columns, summary[name], sizes[name]) for name, runs in arms.items()]
    write_bytes(folder / "ablation.csv", _csv(rows))
    rows = [{**o.arm.columns, **_start(o), **o.measures, "size bytes": o.size_bytes} for o in outcomes]
    write_bytes(folder / RUNS_TABLE, _csv(rows))
    drawn = {name: ([o.measures[SUBJECT] for o in runs], summary[name][SUBJECT]) for name, runs in arms.items()}
    picture = ablation_png(SUBJECT, drawn, {difference.name: difference.estimates[SUBJECT] for difference in compared})
    write_bytes(folder / "ablation.png", picture)


def _start(outcome: Outcome) -> dict[str, int]:
    return {"seed": outcome.seed} | ({} if outcome.fold is None else {"fold": outcome.fold})


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
    answers: Mapping[str, OutOfFold],
) -> str:
    epochs = max(max(outcome.scalars[MONITOR]) for outcome in outcomes) + 1
    measures = list(outcomes[0].measures)
    folds = len({outcome.fold for outcome in outcomes} - {None})
    repeated, caution = ("folds", f", which understate the noise, as {_shared(folds)}") if folds else ("seeds", "")
    rows = [
        [name, *(_cell(measure, cell[measure]) for measure in measures), format_size(sizes[name])]
        for name, cell in summary.items()
    ]
    lines = [
        f"`{command}`",
        "",
        *_out_of_fold_lines(answers),
        f"{len(outcomes)} runs of up to {epochs} epochs, seeds {_all(o.seed for o in outcomes)}; "
        f"images: {_counts(outcomes)}; "
        f"processes: {_all(o.processes for o in outcomes)}; torch {_all(o.torch_version for o in outcomes)}.",
        "",
        *_table(["", *measures, "size"], rows),
        "",
        *_legend(outcomes),
        f"Mean ± standard deviation over {repeated} [95 % interval of the mean, Student's t]{caution}. All but \"best "
        'epoch" are values of the last epoch; training accuracy is measured in training, on augmented images and with '
        "dropout. Balanced accuracy is the mean over classes; s/epoch is the median time of an epoch with validation, "
        "without saving.",
        "",
        *_difference_lines(outcomes, compared),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _counts(outcomes: list[Outcome]) -> str:
    """Returns how many images each split has, in the smallest and in the largest run."""
    texts = []
    for split in outcomes[0].data:
        counts = [outcome.data[split]["images"] for outcome in outcomes]
        texts.append(" to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)})) + f" {split}")
    return ", ".join(texts)


def _difference_lines(outcomes: list[Outcome], compared: list[Difference]) -> list[str]:
    if not compared:
        return []
    folds = len({outcome.fold for outcome in outcomes} - {None})
    rows = [[d.name, *(_difference_cell(m, d.estimates[m]) for m in COMPARED)] for d in compared]
    return [
        _how_compared(compared, "fold" if folds else "seed"),
        "",
        *_table(["", *COMPARED], rows),
        "",
        *(f"- {difference.sentence}" for difference in compared),
        "",
        _chance(compared, outcomes, folds),
    ]


def _out_of_fold_lines(answers: Mapping[str, OutOfFold]) -> list[str]:
    """Returns what the runs of all folds together say of each arm; nothing without folds."""
    if not answers:
        return []
    folds = len(np.unique(next(iter(answers.values())).fold))
    rows = [[name, *_accuracy_cells(answer.readable())] for name, answer in answers.items()]
    return [
        f"Each image validates once, in the run of its fold, one of {folds}, which did not train on it. The answers of "
        f"each run's best weights for its fold, which {OUT_OF_FOLD_TABLE} lists:",
        "",
        *_table(["", "mean over folds, acc. %", "right of all images", "acc. % of all images"], rows),
        "",
        "Mean ± standard deviation over folds; accuracy of all images with Wilson's 95 % interval for other images of "
        "the same kind. Neither is free of bias: the best epoch was chosen by the same images, which flatters, and "
        "each run trained without its fold, which costs.",
        "",
    ]


def _accuracy_cells(answers: OutOfFold) -> list[str]:
    """Returns mean and standard deviation over folds, right of all images, and their share with its interval."""
    of_folds = [100 * answers.right[answers.fold == fold].mean() for fold in np.unique(answers.fold)]
    right, images = int(answers.right.sum()), len(answers.names)
    low, high = wilson_interval(right, images)
    return [
        f"{statistics.fmean(of_folds):.2f} ± {statistics.stdev(of_folds):.2f}",
        f"{right:,} of {images:,}",
        f"{100 * right / images:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
    ]


def _images(outcomes: list[Outcome]) -> str:
    same = all(outcome.data["val"] == outcomes[0].data["val"] for outcome in outcomes)
    return "these validation images" if same else "the validation images that each seed holds out"


def _legend(outcomes: list[Outcome]) -> list[str]:
    """Returns the lines that say what the arms are, where their names do not."""
    arms = {outcome.arm.name: outcome.arm for outcome in outcomes}
    if all(arm.columns == arm.options for arm in arms.values()):
        return []
    return [*(f"- {name}: {spelled(arm.options) or 'no options of its own'}" for name, arm in arms.items()), ""]


def _how_compared(compared: list[Difference], one: str) -> str:
    if all(difference.is_paired for difference in compared):
        return f"Differences, {one} by {one}, with the 95 % interval of their mean:"
    return (
        f"Differences with the 95 % interval of their mean: {one} by {one} (Student's t), or unpaired where the arms "
        "have other seeds (Welch's t):"
    )


def _chance(compared: list[Difference], outcomes: list[Outcome], folds: int) -> str:
    """Returns the sentences on what the intervals of accuracy may be taken for."""
    count = sum(not math.isnan(difference.estimates[SUBJECT].std) for difference in compared)
    if not count:
        images = _images(outcomes)
        return f"One run of each does not show the noise, so no interval can be given. All differences are on {images}."
    noise = f"between folds, and understate it: {_shared(folds)}" if folds else f"between seeds, on {_images(outcomes)}"
    return (
        f"If no setting mattered, {(1 - CONFIDENCE) * count:.2g} of these {count} intervals of accuracy would still "
        f"exclude zero by chance. They reflect the noise {noise}."
    )


def _shared(folds: int) -> str:
    """Says why values of folds are not independent.

    No estimate of their mean's variance is unbiased: Bengio and Grandvalet, "No Unbiased Estimator of the Variance of
    K-Fold Cross-Validation", JMLR 5 (2004).
    """
    if folds == 2:
        return "each of the 2 runs trains on the images that the other is measured with"
    return f"two of {folds} runs share about {100 * (folds - 2) / (folds - 1):.0f} % of their training images"


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
