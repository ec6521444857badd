"""What the runs of an ablation came to, and how they differ seed by seed."""

import functools
import itertools
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.files.errors import UserError
from lightning_modules.classifier import MONITOR
from scripts.ablation.estimate import Estimate, estimate


@dataclass(frozen=True)
class Outcome:
    """What one finished run came to.

    Attributes:
        run: Its folder.
        levels: Value of each varied option.
        seed: Of the run.
        scalars: By name and epoch, as ``RunFolder.read_scalars`` gives them.
        size_bytes: Of parameters and buffers.
        data: The manifest's fingerprint of the images.
        processes: How many the run had.
        torch_version: Of the run's last start.
    """

    run: Path
    levels: dict[str, str]
    seed: int
    scalars: dict[str, dict[int, float]]
    size_bytes: int
    data: dict[str, Any]
    processes: int
    torch_version: str

    def by_epoch(self, name: str) -> dict[int, float]:
        """A scalar; raises ``UserError`` where the run has none, as without validation."""
        if not self.scalars.get(name):
            raise UserError(
                f"expected {name} among TensorBoard's scalars of {self.run}, there is none: let each fit train and "
                "validate, and choose another --name"
            )
        return self.scalars[name]

    def last(self, name: str) -> float:
        """The scalar in the last epoch."""
        values = self.by_epoch(name)
        return values[max(values)]

    @functools.cached_property
    def measures(self) -> dict[str, float]:
        """By the table's heading; shares as percentages. Raises ``UserError`` where one is missing."""
        return {
            "train acc. %": 100 * self.last("train/accuracy"),
            "val acc. %, last epoch": 100 * self.last(MONITOR),
            "val acc. %, best epoch": 100 * max(self.by_epoch(MONITOR).values()),
            "balanced acc. %": 100 * self.last("val/accuracy_macro"),
            "NLL": self.last("val/nll"),
            "ECE": self.last("val/ece"),
            "s/epoch": statistics.median(self.by_epoch("epoch_seconds").values()),
        }


# Which of the measures are compared: the last epoch's, since the best one is chosen by what it is measured with.
COMPARED = ("val acc. %, last epoch", "balanced acc. %", "NLL", "ECE")
SUBJECT = COMPARED[0]


@dataclass(frozen=True)
class Difference:
    """Two values of one option, everything else being equal, seed by seed.

    Attributes:
        name: What is compared: ``model.loss: cross_entropy − focal (model.attention=cbam)``.
        base: The option's first value.
        other: The other value.
        estimates: Of ``other`` minus ``base``, by measure.
    """

    name: str
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
            f"(95 % interval {accuracy.low:+.2f} to {accuracy.high:+.2f})."
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
                at = f" ({spelled(fixed)})" if fixed else ""
                found.append(Difference(f"{option}: {other} − {base}{at}", base, other, estimates))
    return found


def spelled(levels: dict[str, str]) -> str:
    """A combination in words."""
    return ", ".join(f"{name}={value}" for name, value in levels.items())
