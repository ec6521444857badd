"""``TrainingRecipe``: the size, augmentation and mixing of training images in each epoch of a run."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from datamodules.files.errors import UserError
from datamodules.images.mixing import Mix, draw_mix
from datamodules.images.transforms import (
    Transform,
    reference_transform,
    side_to_load,
    train_transform,
    trivial_transform,
)

if TYPE_CHECKING:
    from pytorch_lightning import Trainer  # a second, which a loader process does not need

Augmentation = Literal["fused", "reference", "trivial"]
TRANSFORMS: dict[Augmentation, Callable[[int, tuple[float, float], float], Transform]] = {
    "fused": train_transform,
    "reference": reference_transform,
    "trivial": trivial_transform,
}
LARGEST_ALPHA = 100.0  # beyond it every share is one half
PHASE = re.compile(r"\s*([0-9]{1,4})@([0-9]*\.?[0-9]+)\s*")


@dataclass(frozen=True)
class TrainingRecipe:
    """How training images are made; except for ``epochs``, the options of ``ImageFolderDataModule`` by the same names.

    What differs between epochs is a function of the epoch, which comes with each sample: loader processes outlive an
    epoch, and would not see that an attribute changed.

    Args:
        epochs: Length of the run; None if it is unknown, and then every epoch is of ``image_size`` and none is plain.

    Raises:
        UserError: An option is out of its range, contradicts another, or has no effect.
    """

    image_size: int
    augmentation: Augmentation
    crop_scale: tuple[float, float]
    random_erasing: float
    mixup_alpha: float
    cutmix_alpha: float
    mix_probability: float
    plain_epochs: int
    progressive: str | None
    epochs: int | None = None

    def __post_init__(self) -> None:
        smallest, largest = self.crop_scale
        if not 0 < smallest <= largest <= 1:
            raise UserError(
                "--data.crop_scale must be the smallest and the largest share of an image's area, above 0 and at most "
                f"1, got [{smallest}, {largest}]: write it like --data.crop_scale=[0.8,1.0]"
            )
        for name, hint in {"random_erasing": "0 turns it off", "mix_probability": "1 mixes every batch"}.items():
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UserError(f"--data.{name} must be between 0 and 1, got {value}: {hint}")
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not 0 <= (value := getattr(self, name)) <= LARGEST_ALPHA:
                raise UserError(
                    f"--data.{name} must be between 0 and {LARGEST_ALPHA:g}, got {value}: 0 turns it off, and 0.2 to 1 "
                    "is usual"
                )
        mixes = self.mixup_alpha or self.cutmix_alpha
        if self.mix_probability != 1 and not mixes:
            raise UserError(
                f"--data.mix_probability {self.mix_probability} has no effect, as nothing is mixed: give "
                "--data.mixup_alpha or --data.cutmix_alpha too, or leave it out"
            )
        if self.plain_epochs < 0:
            raise UserError(f"--data.plain_epochs must be at least 0, got {self.plain_epochs}: 0 turns it off")
        if self.plain_epochs and not (mixes or self.random_erasing):
            raise UserError(
                f"--data.plain_epochs {self.plain_epochs} has no effect, as no epoch has erasing or mixing: give "
                "--data.random_erasing, --data.mixup_alpha or --data.cutmix_alpha too, or leave it out"
            )
        if self.phases and self.phases[-1][0] != self.image_size:
            raise UserError(
                f"--data.progressive {self.progressive} must end with the size of validation's images, "
                f"--data.image_size {self.image_size}: change one of them"
            )

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> "TrainingRecipe":
        """Builds the recipe of the data module's options, before a run's length is known."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "epochs"]
        return cls(**{name: options[name] for name in names})

    @functools.cached_property
    def phases(self) -> list[tuple[int, Decimal]]:
        """Sizes in pixels, each with the share of the epochs at which it ends; empty for one size."""
        return phases_of(self.progressive) if self.progressive is not None else []

    @functools.cached_property
    def ends(self) -> list[tuple[int, int]]:
        """Sizes in pixels, each with the epoch before which it ends; empty for one size or an unknown length."""
        return [(size, int(share * self.epochs)) for size, share in self.phases] if self.epochs is not None else []

    @property
    def needs_length(self) -> list[str]:
        """The options, as they are typed, whose effect depends on the length of the run."""
        options = {"progressive": self.progressive, "plain_epochs": self.plain_epochs or None}
        return [f"--data.{name} {value}" for name, value in options.items() if value is not None]

    def for_run(self, trainer: "Trainer") -> "TrainingRecipe":
        """Returns the recipe for a fit of this trainer's length; in a trial run, of the last size and not plain.

        Raises:
            UserError: Its length in epochs is unknown or too small, or its samples do not come with their epoch.
        """
        from pytorch_lightning.callbacks import BatchSizeFinder  # here, as no loader process needs it

        if not self.needs_length or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return self
        option, epochs = self.needs_length[0], trainer.max_epochs
        if trainer.overfit_batches:  # type: ignore[attr-defined]
            raise UserError(
                f"{option} cannot be combined with --trainer.overfit_batches, which repeats the images of the first "
                "epoch: leave one of them out"
            )
        if self.phases and any(isinstance(x, BatchSizeFinder) for x in trainer.callbacks):  # type: ignore[attr-defined]
            raise UserError(
                "BatchSizeFinder looks at the first epoch only, whose images may be the smallest, so it cannot be "
                "combined with --data.progressive: leave one of them out"
            )
        if epochs is None or epochs < 0 or trainer.max_steps >= 0:
            raise UserError(
                f"{option} needs a run whose length is known in epochs: give --trainer.max_epochs, and leave "
                "--trainer.max_steps out"
            )
        run = dataclasses.replace(self, epochs=epochs)
        if run.is_plain(0):
            raise UserError(
                f"--data.plain_epochs {self.plain_epochs} leaves no other epoch in a run of --trainer.max_epochs "
                f"{epochs}: lower it, or leave erasing and mixing out"
            )
        for (size, end), (_, start) in zip(run.ends, [(0, 0), *run.ends], strict=False):
            if start == end:
                raise UserError(
                    f"--data.progressive {self.progressive} leaves no epoch for {size} pixels in a run of "
                    f"--trainer.max_epochs {epochs}: raise it, or leave that size out"
                )
        return run

    @property
    def side_to_load(self) -> int | None:
        """The shorter side in pixels with which photos are loaded, enough for every epoch; None for whole photos."""
        largest = max([self.image_size, *(size for size, _ in self.phases)])
        return None if self.augmentation == "reference" else side_to_load(largest)

    def size(self, epoch: int) -> int:
        """Returns the side in pixels of the images of an epoch, which counts from 0."""
        return next((size for size, end in self.ends if epoch < end), self.image_size)

    def is_plain(self, epoch: int) -> bool:
        """Returns whether an epoch is one of the last ones, without erasing and mixing."""
        return self.plain_epochs > 0 and self.epochs is not None and epoch >= self.epochs - self.plain_epochs

    def transform(self, epoch: int) -> Transform:
        """Returns the transform of an epoch."""
        erasing = 0.0 if self.is_plain(epoch) else self.random_erasing
        return _transform(self.augmentation, self.size(epoch), self.crop_scale, erasing)

    def draw_mix(self, epoch: int, seed: int) -> Mix | None:
        """Draws how a batch of an epoch is mixed; None if it is not."""
        if self.is_plain(epoch):
            return None
        alphas = {"mixup_alpha": self.mixup_alpha, "cutmix_alpha": self.cutmix_alpha}
        return draw_mix(seed, self.size(epoch), probability=self.mix_probability, **alphas)


@functools.cache
def _transform(
    augmentation: Augmentation, size: int, crop_scale: tuple[float, float], random_erasing: float
) -> Transform:
    return TRANSFORMS[augmentation](size, crop_scale, random_erasing)


def phases_of(progressive: str) -> list[tuple[int, Decimal]]:
    """Reads ``SIZE@SHARE,SIZE@SHARE``: sizes in pixels, each with the share of the epochs at which it ends.

    Shares are decimal numbers, as 0.29 · 100 would be less than 29 in binary.

    Example:
        >>> phases_of("128@0.5,160@1")
        [(128, Decimal('0.5')), (160, Decimal('1'))]

    Raises:
        UserError: The text has another form, a size is 0, or the shares do not rise to 1.
    """
    parts = [PHASE.fullmatch(part) for part in progressive.split(",")]
    phases = [(int(part[1]), Decimal(part[2])) for part in parts if part]
    shares = [share for _, share in phases]
    if len(phases) != len(parts) or not all(size > 0 for size, _ in phases):
        raise UserError(
            f"--data.progressive must list sizes in pixels, each with the share of the epochs at which it ends, got "
            f"{progressive or 'an empty text'}: write it like 128@0.5,160@0.8,192@1"
        )
    if shares[0] <= 0 or shares != sorted(set(shares)) or shares[-1] != 1:
        raise UserError(
            f"the shares of --data.progressive must rise from above 0 to 1, got {progressive}: write it like "
            "128@0.5,160@0.8,192@1"
        )
    return phases
