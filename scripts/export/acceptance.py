"""Whether an exported file answers as its checkpoint does: what is compared, and the rule."""

from dataclasses import dataclass

import numpy as np

from lightning_modules.metrics.proportions import mcnemar_p_value
from scripts.console import counted

CLEAR = 1e-4  # Lead of the best logit over the next beyond which rounding in float32 cannot change the best class.


@dataclass(frozen=True)
class Evaluation:
    """The checkpoint's answers on validation images, computed in float32.

    Attributes:
        targets: Class indices ``(images,)``.
        predicted: Indices of the most probable classes ``(images,)``.
        lead: By how much the best logit exceeds the second-best ``(images,)``.
        probabilities: float32 ``(images, classes)``.
        images_per_second: Speed of the network alone, without the reading of images.
    """

    targets: np.ndarray
    predicted: np.ndarray
    lead: np.ndarray
    probabilities: np.ndarray
    images_per_second: float

    def right_among(self, k: int) -> int:
        """Returns the number of images whose class is among the ``k`` most probable; of equal ones the first count."""
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return int((order == self.targets[:, None]).any(1).sum())


@dataclass(frozen=True)
class Fidelity:
    """How a file's answers differ from the checkpoint's on the same validation images.

    Attributes:
        images: Number of images.
        right: Number of images that the file classifies correctly.
        checkpoint_right: Number of images that the checkpoint does.
        only_checkpoint: Number of images on which only the checkpoint is right.
        only_file: Number of images on which only the file is.
        agreeing: Number of images with the same most probable class.
        clear_changes: Number of images with another one although the checkpoint's best logits lie more than
            ``CLEAR`` apart.
        largest_difference: Largest difference of a class's probability; NaN if one is.
    """

    images: int
    right: int
    checkpoint_right: int
    only_checkpoint: int
    only_file: int
    agreeing: int
    clear_changes: int
    largest_difference: float

    @classmethod
    def between(cls, checkpoint: Evaluation, probabilities: np.ndarray) -> "Fidelity":
        """Compares a file's probabilities ``(images, classes)``, in the same order of images."""
        predicted = probabilities.argmax(1)
        before, after = checkpoint.predicted == checkpoint.targets, predicted == checkpoint.targets
        same = predicted == checkpoint.predicted
        return cls(
            images=len(predicted),
            right=int(after.sum()),
            checkpoint_right=int(before.sum()),
            only_checkpoint=int((before & ~after).sum()),
            only_file=int((after & ~before).sum()),
            agreeing=int(same.sum()),
            clear_changes=int((~same & (checkpoint.lead > CLEAR)).sum()),
            largest_difference=float(np.abs(probabilities - checkpoint.probabilities).max(initial=0.0)),
        )

    @property
    def drop(self) -> float:
        """By how much the accuracy fell, as a fraction; negative where it rose."""
        return (self.checkpoint_right - self.right) / self.images

    @property
    def p_value(self) -> float:
        """McNemar's exact test of the two accuracies."""
        return mcnemar_p_value(self.only_checkpoint, self.only_file)

    def refusal(self, precision: str, max_drop: float) -> str | None:
        """Returns why the file must not be delivered, or None if it may be.

        Args:
            precision: Precision of the file; fp32 must choose the same class wherever float32 decides it.
            max_drop: Largest loss of accuracy of any other precision, as a fraction.
        """
        if not np.isfinite(self.largest_difference):
            return "it answers with probabilities that are not numbers"
        if precision == "fp32":
            clear = f"{self.clear_changes:,} of {counted(self.images, 'validation image')}"
            differs = f"it puts {clear} into another class, though the best logits lie more than {CLEAR:g} apart"
            return differs if self.clear_changes else None
        # In whole images, so that a drop of exactly max_drop passes whatever the rounding of the fractions.
        if self.checkpoint_right - self.right > max_drop * self.images + 1e-9:
            return (
                f"its accuracy on {counted(self.images, 'validation image')} is {self.right / self.images:.4f}, which "
                f"is {self.drop:.4f} less than the checkpoint's {self.checkpoint_right / self.images:.4f} "
                f"(McNemar's p = {self.p_value:.2g}), and --max_drop allows {max_drop:g}"
            )
        return None
