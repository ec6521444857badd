"""Which labelled images train and which validate: a function of their names and the seed, the same on every machine."""

import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from datamodules.files.errors import UserError
from datamodules.images import location
from datamodules.images.find import ImageFile

Files = dict[str, list[ImageFile]]  # by class, each named <class>/<name>


@dataclass(frozen=True)
class Partition:
    """How ``train`` is divided if there is no ``val``, and how much of it trains.

    Attributes:
        seed: Seed of the choice.
        val_fraction: Share of each class that is held out for validation.
        folds: Number of folds, of which one validates, instead of ``val_fraction``; 0 for none.
        fold: The fold that validates, from 0.
        group_pattern: Regular expression over names, whose first group, or whole match, names the object.
        fraction: Share of each class's training images that train.
    """

    seed: int
    val_fraction: float = 0.1
    folds: int = 0
    fold: int = 0
    group_pattern: str | None = None
    fraction: float = 1.0

    @property
    def held_out(self) -> str:
        """What is held out for validation, in words."""
        if self.folds:
            return f"fold {self.fold} of {self.folds} (0 to {self.folds - 1})"
        return f"{100 * self.val_fraction:g}% of each class"

    def divide(self, files: Files) -> tuple[Files, Files]:
        """Splits images in two, class by class: those that train, and ``val_fraction`` of each class, at least one.

        The choice follows a hash of the seed and the name, which no library's random stream or file system's order can
        change.

        Raises:
            UserError: Nothing would stay of a class.
        """
        stay, held_out = {}, {}
        for name, images in files.items():
            count = max(1, round(len(images) * self.val_fraction))
            if count >= len(images):
                raise UserError(
                    f"class {name} has too few images ({len(images)}) to hold out {count} for validation: add images "
                    "or a val folder, or lower --data.val_fraction"
                )
            chosen = _with_twins({image.path for image in sorted(images, key=self._key)[:count]}, images)
            if len(chosen) == len(images):
                raise UserError(
                    f"class {name} has too few different images to hold out {count} for validation, as its other names "
                    "are hard links to those: add images or a val folder"
                )
            held_out[name] = [image for image in images if image.path in chosen]
            stay[name] = [image for image in images if image.path not in chosen]
        return stay, held_out

    def take(self, train: Files) -> Files:
        """Returns ``fraction`` of each class, at least one image; a smaller fraction is part of a larger one."""
        if self.fraction >= 1:
            return train
        taken = {}
        for name, images in train.items():
            chosen = {*sorted(images, key=self._key)[: max(1, math.ceil(len(images) * self.fraction))]}
            taken[name] = [image for image in images if image in chosen]
        return taken

    def _key(self, image: ImageFile) -> bytes:
        return hashlib.sha256(f"{self.seed}/train/{image.name}".encode("utf-8", "surrogateescape")).digest()


def _with_twins(chosen: set[str], images: Sequence[ImageFile]) -> set[str]:
    """Adds the other hard links to the chosen files: an image that is measured must not be trained with."""
    several: dict[str, tuple[int, ...]] = {}
    for image in images:
        with suppress(OSError):  # gone since the scan
            if identity := location.identity(image.path):
                several[image.path] = identity
    files = {several[path] for path in chosen if path in several}
    return chosen | {path for path, file in several.items() if file in files}
