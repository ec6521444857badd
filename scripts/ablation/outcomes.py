"""Results of the runs of an ablation, and their differences."""

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.files.errors import UserError
from lightning_modules.classifier import MONITOR
from scripts.ablation.arms import Arm, Pair
from scripts.ablation.estimate import Estimate, estimate, unpaired


@dataclass(frozen=True)
class Outcome:
    """Results of one finished run."""

    run: Path
    arm: Arm
    seed: int
    scalars: dict[str, dict[int, float]]  # by name and epoch
    size_bytes: int  # of parameters and buffers
    data: dict[str, Any]  # fingerprint of the images
    processes: int
    torch_version: str  # at the run's last start
    fold: int | None = None  # that it did not train on

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
    """Difference between the two arms of a pair."""

    pair: Pair
    is_paired: bool  # whether both arms have the same seeds and folds
    estimates: dict[str, Estimate]  # of other minus base, by measure

    @property
    def name(self) -> str:
        """Name of the pair in tables."""
        return self.pair.name if self.is_paired else f"{self.pair.name} (other seeds, unpaired)"

    @property
    def sentence(self) -> str:
        """States whether, and how much, the accuracy differs."""
        accuracy = self.estimates[SUBJECT]
        if math.isnan(accuracy.std):
            return f"{self.name}: one seed does not show the noise, so nothing can be concluded."
        if accuracy.is_noise:
            return f"{self.name}: no difference larger than the noise."
        better = self.pair.names[accuracy.mean > 0]
        return (
            f"{self.name}: {better} is better by {abs(accuracy.mean):.2f} points of validation accuracy "
            f"(95 % interval {accuracy.low:+.2f} to {accuracy.high:+.2f})."
        )


def differences(outcomes: Sequence[Outcome], pairs: Sequence[Pair]) -> list[Difference]:
    """Compares the arms of each pair: seed by seed or fold by fold where both have the same, or else their means."""
    return [_difference(pair, *(_by_start(outcomes, arm) for arm in (pair.base, pair.other))) for pair in pairs]


ByStart = dict[tuple[int, int | None], dict[str, float]]  # measures by seed and fold


def _by_start(outcomes: Sequence[Outcome], arm: Arm) -> ByStart:
    return {(outcome.seed, outcome.fold): outcome.measures for outcome in outcomes if outcome.arm == arm}


def _difference(pair: Pair, base: ByStart, other: ByStart) -> Difference:
    is_paired = base.keys() == other.keys()
    estimates = {}
    for name in COMPARED:
        before, after = ({start: runs[start][name] for start in runs} for runs in (base, other))
        estimates[name] = (
            estimate([after[start] - before[start] for start in before])
            if is_paired
            else unpaired([*before.values()], [*after.values()])
        )
    return Difference(pair, is_paired, estimates)
