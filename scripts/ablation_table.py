"""What an ablation says: a table of its combinations, paired differences, and which are larger than the noise."""

import csv
import io
import itertools
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callbacks.run_manifest import versions
from datamodules.atomic_file import write_bytes
from datamodules.errors import UserError
from lightning_modules.classifier import MONITOR
from lightning_modules.model_size import format_size
from scripts.ablation_plot import ablation_png
from scripts.estimate import Estimate, estimate


@dataclass(frozen=True)
class Outcome:
    """What one finished run came to.

    Attributes:
        levels: Value of each varied option.
        seed: Of the run.
        scalars: By name and epoch, as ``read_scalars`` gives them.
        size_bytes: Of parameters and buffers.
        data: The manifest's fingerprint of the images.
    """

    levels: dict[str, str]
    seed: int
    scalars: dict[str, dict[int, float]]
    size_bytes: int
    data: dict[str, Any]

    def last(self, name: str) -> float:
        """The scalar in the last epoch."""
        values = self.scalars[name]
        return values[max(values)]

    @property
    def measures(self) -> dict[str, float]:
        """By the table's heading; shares as percentages."""
        return {
            "train acc. %": 100 * self.last("train/accuracy"),
            "val acc. %, last epoch": 100 * self.last(MONITOR),
            "val acc. %, best epoch": 100 * max(self.scalars[MONITOR].values()),
            "balanced acc. %": 100 * self.last("val/accuracy_macro"),
            "NLL": self.last("val/nll"),
            "ECE": self.last("val/ece"),
            "s/epoch": statistics.median(self.scalars["epoch_seconds"].values()),
        }


# Which of the measures are compared: the last epoch's, since the best one is chosen by what it is measured with.
COMPARED = ("val acc. %, last epoch", "balanced acc. %", "NLL", "ECE")
SUBJECT = COMPARED[0]


@dataclass(frozen=True)
class Difference:
    """Two values of one option, everything else being equal, seed by seed.

    Attributes:
        name: What is compared: ``model.loss: cross_entropy − focal (model.attention=cbam)``.
        option: Its name.
        base: Its first value.
        other: The other value.
        estimates: Of ``other`` minus ``base``, by measure.
    """

    name: str
    option: str
    base: str
    other: str
    estimates: dict[str, Estimate]

    @property
    def sentence(self) -> str:
        """What can be said of the accuracy."""
        accuracy = self.estimates[SUBJECT]
        if math.isnan(accuracy.std):
            return f"{self.name}: one seed does not show the noise, so that nothing can be said."
        if accuracy.is_noise:
            return f"{self.name}: no difference larger than the noise."
        better = self.other if accuracy.mean > 0 else self.base
        return (
            f"{self.name}: {better} is better by {abs(accuracy.mean):.2f} points of validation accuracy "
            f"({_interval(accuracy, 2)})."
        )


def differences(outcomes: list[Outcome]) -> list[Difference]:
    """Each value of each option against the option's first, at every combination of the other options."""
    found = []
    by_key = {(tuple(outcome.levels.items()), outcome.seed): outcome.measures for outcome in outcomes}
    options = list(outcomes[0].levels)
    values = {option: list(dict.fromkeys(outcome.levels[option] for outcome in outcomes)) for option in options}
    seeds = sorted({outcome.seed for outcome in outcomes})
    for option in options:
        others = [name for name in options if name != option]
        for rest in itertools.product(*(values[name] for name in others)):
            fixed = dict(zip(others, rest, strict=True))
            base, *more = values[option]
            for other in more:
                pairs = [
                    tuple(
                        by_key[tuple((name, {**fixed, option: level}[name]) for name in options), seed]
                        for level in (base, other)
                    )
                    for seed in seeds
                ]
                estimates = {
                    measure: estimate([after[measure] - before[measure] for before, after in pairs])
                    for measure in COMPARED
                }
                at = f" ({_spelled(fixed)})" if fixed else ""
                found.append(Difference(f"{option}: {other} − {base}{at}", option, base, other, estimates))
    return found


def write_tables(folder: Path, outcomes: list[Outcome], command: str) -> None:
    """Writes ``ablation.md``, ``ablation.csv``, ``ablation_runs.csv`` and ``ablation.png``.

    Args:
        folder: Where.
        outcomes: Every combination with every seed.
        command: What made them.

    Raises:
        UserError: Runs of one seed saw different images.
    """
    _require_same_data(outcomes)
    cells: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        cells.setdefault(_spelled(outcome.levels), []).append(outcome)
    summary = {
        name: {measure: estimate([run.measures[measure] for run in runs]) for measure in runs[0].measures}
        for name, runs in cells.items()
    }
    sizes = {name: runs[0].size_bytes for name, runs in cells.items()}
    compared = differences(outcomes)
    write_bytes(folder / "ablation.md", _markdown(outcomes, summary, sizes, compared, command).encode())
    write_bytes(folder / "ablation.csv", _csv(_summary_rows(outcomes, summary, sizes)))
    runs = [{**o.levels, "seed": o.seed, **o.measures, "size bytes": o.size_bytes} for o in outcomes]
    write_bytes(folder / "ablation_runs.csv", _csv(runs))
    accuracies = {name: [run.measures[SUBJECT] for run in runs] for name, runs in cells.items()}
    write_bytes(
        folder / "ablation.png",
        ablation_png(
            SUBJECT,
            {name: (values, summary[name][SUBJECT]) for name, values in accuracies.items()},
            {difference.name: difference.estimates[SUBJECT] for difference in compared},
        ),
    )


def _require_same_data(outcomes: list[Outcome]) -> None:
    first: dict[int, Outcome] = {}
    for outcome in outcomes:  # without val/ another seed holds out other images
        other = first.setdefault(outcome.seed, outcome)
        if outcome.data != other.data:
            raise UserError(
                f"expected all runs of seed {outcome.seed} to see the same images, those of {_spelled(outcome.levels)} "
                f"and {_spelled(other.levels)} differ: the data were changed in between, choose another --name"
            )


def _spelled(levels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in levels.items()) or "all"


def _interval(value: Estimate, digits: int) -> str:
    return f"95 % interval {value.low:+.{digits}f} to {value.high:+.{digits}f}"


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
    images = {split: facts.get("images") for split, facts in outcomes[0].data.items()}
    measures = list(outcomes[0].measures)
    lines = [
        f"`{command}`",
        "",
        f"{len(outcomes)} runs of {epochs} epochs, seeds {', '.join(map(str, seeds))}; images: "
        + ", ".join(f"{count:,} {split}" for split, count in images.items() if count)
        + f"; torch {versions()['torch']}.",
        "",
        *_table(
            ["", *measures, "size"],
            [
                [name, *(_cell(measure, cell[measure]) for measure in measures), format_size(sizes[name])]
                for name, cell in summary.items()
            ],
        ),
        "",
        'Mean ± standard deviation over seeds [95 % interval of the mean, Student\'s t]. Everything but "best epoch" '
        "is of the last epoch; training accuracy is measured while training, on augmented images and with dropout. "
        "Balanced accuracy is the mean over classes, s/epoch the median epoch with validation and saving.",
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
        f"Of {len(compared)} such intervals one in 20 misses the truth by chance. They speak of the noise between "
        "seeds, on these validation images.",
    ]
    return "\n".join(lines) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _summary_rows(
    outcomes: list[Outcome], summary: dict[str, dict[str, Estimate]], sizes: dict[str, int]
) -> list[dict[str, Any]]:
    levels = {_spelled(outcome.levels): outcome.levels for outcome in outcomes}
    return [
        {
            **levels[name],
            **{
                f"{measure} {part}": getattr(value, part)
                for measure, value in cell.items()
                for part in ("mean", "std", "low", "high")
            },
            "size bytes": sizes[name],
        }
        for name, cell in summary.items()
    ]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
