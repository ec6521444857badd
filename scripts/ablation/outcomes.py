"""Results of the runs of an ablation, and their differences seed by seed."""

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
    """Results of one finished run."""

    run: Path
    levels: dict[str, str]  # value of each varied option
    seed: int
    scalars: dict[str, dict[int, float]]  # by name and epoch
    size_bytes: int  # of parameters and buffers
    data: dict[str, Any]  # fingerprint of the images
    processes: int
    torch_version: str  # at the run's last start

    def by_epoch(self, name: str) -> dict[int, float]:
        """Returns a scalar by epoch; raises ``UserError`` if the run did not log it, as without validation."""
        if not self.scalars.get(name):
            raise UserError(
                f"{self.run} has no {name} among TensorBoard's scalars: let each fit train and validate, and choose "
                "another --name"
            )
        return self.scalars[name]

    def last(self, name: str) -> float:
        """Returns a scalar in the last epoch."""
        values = self.by_epoch(name)
        return values[max(values)]

    @functools.cached_property
    def measures(self) -> dict[str, float]:
        """Numbers of the table, by its headings; raises ``UserError`` if a scalar is missing."""
        return {
            "train acc. %": 100 * self.last("train/accuracy"),
            "val acc. %, last epoch": 100 * self.last(MONITOR),
            "val acc. %, best epoch": 100 * max(self.by_epoch(MONITOR).values()),
            "balanced acc. %": 100 * self.last("val/accuracy_macro"),
            "NLL": self.last("val/nll"),
            "ECE": self.last("val/ece"),
            "s/epoch": statistics.median(self.by_epoch("epoch_seconds").values()),
        }


# Measures that are compared: of the last epoch, as the best one is chosen by the accuracy that it is measured with.
COMPARED = ("val acc. %, last epoch", "balanced acc. %", "NLL", "ECE")
SUBJECT = COMPARED[0]


@dataclass(frozen=True)
class Difference:
    """Difference between two values of one option, everything else being equal."""

    name: str  # such as model.loss: cross_entropy − focal (model.attention=cbam)
    base: str
    other: str
    estimates: dict[str, Estimate]  # of other minus base, by measure

    @property
    def sentence(self) -> str:
        """States whether, and how much, the accuracy differs."""
        accuracy = self.estimates[SUBJECT]
        if math.isnan(accuracy.std):
            return f"{self.name}: one seed does not show the noise, so nothing can be concluded."
        if accuracy.is_noise:
            return f"{self.name}: no difference larger than the noise."
        better = self.other if accuracy.mean > 0 else self.base
        return (
            f"{self.name}: {better} is better by {abs(accuracy.mean):.2f} points of validation accuracy "
            f"(95 % interval {accuracy.low:+.2f} to {accuracy.high:+.2f})."
        )


def differences(outcomes: list[Outcome]) -> list[Difference]:
    """Compares each value of each option with the option's first, at every combination of the other options."""
    found = []
    by_key = {(frozenset(outcome.levels.items()), outcome.seed): outcome.measures for outcome in outcomes}
    options = list(outcomes[0].levels)
    values = {option: list(dict.fromkeys(outcome.levels[option] for outcome in outcomes)) for option in options}
    seeds = sorted({outcome.seed for outcome in outcomes})
    for option in options:
        others = [name for name in options if name != option]
        for rest in itertools.product(*(values[name] for name in others)):
            fixed = dict(zip(others, rest, strict=True))
            base, *more = values[option]
            for other in more:
                before, after = (frozenset({**fixed, option: level}.items()) for level in (base, other))
                estimates = {
                    measure: estimate([by_key[after, seed][measure] - by_key[before, seed][measure] for seed in seeds])
                    for measure in COMPARED
                }
                at = f" ({spelled(fixed)})" if fixed else ""
                found.append(Difference(f"{option}: {other} − {base}{at}", base, other, estimates))
    return found


def spelled(levels: dict[str, str]) -> str:
    """Returns a combination as text.

    Example:
        >>> spelled({"model.loss": "focal", "model.dropout": "0"})
        'model.loss=focal, model.dropout=0'
    """
    return ", ".join(f"{name}={value}" for name, value in levels.items())
