"""Which labelled images train and which validate, where the data set leaves that open: a held-out part, or folds."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from datamodules.class_index import natural_key
from datamodules.data_options import DEFAULT_VAL_FRACTION
from datamodules.files.errors import UserError, listed
from datamodules.group_balance import spread
from datamodules.groups import groups_of, stay_together
from datamodules.images.find import ImageFile

Files = dict[str, list[ImageFile]]  # by class; an image's name is <class>/<name>


@dataclass(frozen=True)
class Partition:
    """Divides training images into those that train and those that validate.

    The choice follows a hash of the seed and an image's name, which no library's random stream, no form of a data set
    and no file system's order can change. Hard links of one file stay together.

    Example:
        >>> cats, dogs = ([ImageFile(f"{name}/{i}.jpg", "") for i in range(4)] for name in ("cat", "dog"))
        >>> training, validation = Partition(seed=42, folds=4, fold=1).divide({"cat": cats, "dog": dogs})
        >>> [len(images) for images in (*training.values(), *validation.values())]
        [3, 3, 1, 1]

    Attributes:
        seed: Seed of the hash.
        val_fraction: Share of each class that validates, if there are no folds.
        folds: Number of parts that take turns at validating; 0 for none.
        fold: The part that validates, from 0.
        group_pattern: Regular expression that finds an image's group in its name; images of one group stay together.
        fraction: Share of each class's training images that train.
        group_column: Column of the labels file that ``ImageFile.group`` comes from, which takes the place of a pattern;
            an image with an empty cell there is alone.
    """

    seed: int
    val_fraction: float = DEFAULT_VAL_FRACTION
    folds: int = 0
    fold: int = 0
    group_pattern: str | None = None
    fraction: float = 1.0
    group_column: str | None = None

    @property
    def description(self) -> str:
        """What is held out for validation, in words."""
        if self.folds:
            share = f"fold {self.fold} of {self.folds} (0 to {self.folds - 1})"
        else:
            share = f"{100 * self.val_fraction:g}% of each class"
        return f"{share}, in whole groups" if self._has_groups else share

    @property
    def moves_many(self) -> bool:
        """Whether one image more or less may change the side of many others."""
        return bool(self.folds) or self._has_groups

    @property
    def _has_groups(self) -> bool:
        return self.group_pattern is not None or self.group_column is not None

    def divide(self, files: Files) -> tuple[Files, Files]:
        """Returns the training and the validation images, each in the order that they came in.

        Folds are stratified: their sizes differ by one at most, and so do those of each class. Groups go whole to one
        side, so there the shares are as close as ``spread`` gets them.

        Raises:
            UserError: A class would have no image on one side, or names have no groups.
        """
        if self._has_groups:
            chosen = self._grouped(files)
        elif self.folds:
            chosen = self._dealt(files)
        else:
            chosen = self._held_out(files)
        names = {image.name for image in chosen}
        return (
            {name: [image for image in images if image.name not in names] for name, images in files.items()},
            {name: [image for image in images if image.name in names] for name, images in files.items()},
        )

    def take(self, train: Files) -> Files:
        """Returns ``fraction`` of each class, at least one image; a smaller fraction is part of any larger one."""
        if self.fraction == 1:
            return train
        taken: Files = {}
        for name, images in train.items():
            count = max(1, round(len(images) * self.fraction))
            first = {image.name for image in self._in_order(images)[:count]}
            taken[name] = [image for image in images if image.name in first]
        return taken

    def require_groups_apart(self, training: Files, validation: Files) -> None:
        """Checks that no group is on both sides of a division that the data set itself makes.

        Raises:
            UserError: A group is.
        """
        if not self._has_groups:
            return
        sides = [
            {group for images in side.values() for group in groups_of(images, self.group_pattern) if group}
            for side in (training, validation)
        ]
        if shared := sorted(sides[0] & sides[1], key=natural_key):
            raise UserError(
                f"images of one group are both in train and in val ({listed(shared)}): move each group to one of "
                "them, or leave out --data.group_column and --data.group_pattern"
            )

    def _key(self, image: ImageFile) -> bytes:
        return hashlib.sha256(f"{self.seed}/train/{image.name}".encode("utf-8", "surrogateescape")).digest()

    def _in_order(self, images: Iterable[ImageFile]) -> list[ImageFile]:
        return sorted(images, key=self._key)

    def _held_out(self, files: Files) -> Iterator[ImageFile]:
        """Chooses the first images of each class by their hash."""
        for name, images in files.items():
            count = max(1, round(len(images) * self.val_fraction))
            if count >= len(images):
                raise UserError(
                    f"class {name} has too few images ({len(images)}) to hold out {count} for validation: add images "
                    "or a val folder, or lower --data.val_fraction"
                )
            in_order = self._in_order(images)
            first = {image.name for image in in_order[:count]}
            chosen = [unit for unit in stay_together(in_order) if unit[0].name in first]
            if sum(map(len, chosen)) == len(images):
                raise UserError(
                    f"class {name} has too few different images to hold out {count} for validation, as its other names "
                    "are hard links to those: add images or a val folder"
                )
            yield from itertools.chain.from_iterable(chosen)

    def _dealt(self, files: Files) -> Iterable[ImageFile]:
        """Deals the images to the folds in turn, class after class, and chooses those of one fold."""
        units: list[list[ImageFile]] = []
        for name in sorted(files):
            of_class = stay_together(self._in_order(files[name]))
            if (count := len(of_class)) < self.folds:
                raise UserError(
                    f"class {name} has {count} different images, too few for one in each of {self.folds} folds: add "
                    f"images{f', or make {count} folds' if count > 1 else ''}"
                )
            units += of_class
        return itertools.chain.from_iterable(units[self.fold :: self.folds])

    def _grouped(self, files: Files) -> Iterable[ImageFile]:
        """Spreads groups, the largest first and then by their hash, and chooses those of one part."""
        classes = {image.name: name for name, images in files.items() for image in images}
        if self.group_pattern is None and not any(image.group for images in files.values() for image in images):
            raise UserError(
                f"--data.group_column {self.group_column}, as typed or in the trained file, is a column of a labels "
                "file, but no labels file says which of these images belong together: pass --data.labels"
            )
        in_order = self._in_order(itertools.chain(*files.values()))
        groups = stay_together(in_order, groups_of(in_order, self.group_pattern))
        groups.sort(key=len, reverse=True)  # stable
        counts = [Counter(classes[image.name] for image in group) for group in groups]
        parts, what = self.folds or 2, f"the {self.folds} folds" if self.folds else "training and validation"
        groups_with = Counter(name for group in counts for name in group)
        for name in sorted(files):
            if (count := groups_with[name]) < parts:
                raise UserError(
                    f"class {name} has images of {count} group{'s' * (count != 1)}, too few for one in each of {what}, "
                    f"as no group is divided: add images of other groups, or use "
                    f"{'fewer folds or ' if self.folds and count > 1 else ''}finer groups"
                )
        if self.folds:
            inverse_shares, wanted = [1] * self.folds, self.fold
        else:
            share = Fraction(str(self.val_fraction))  # the decimal number that was typed
            inverse_shares, wanted = [share.denominator - share.numerator, share.numerator], 0
        part_of = spread(counts, inverse_shares)
        return itertools.chain.from_iterable(groups[i] for i, part in enumerate(part_of) if part == wanted)
