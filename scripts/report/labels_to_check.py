"""The section of a report on labels that may be wrong, and the table of all labels beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from callbacks.figures.draw import images_figure, short, to_png
from callbacks.predictions.out_of_fold import OUT_OF_FOLD_TABLE, WAY_OUT, OutOfFold, read_out_of_fold
from callbacks.run.run_folder import RunFolder
from datamodules import ImageFolderDataModule
from datamodules.files.atomic_file import atomic_file
from datamodules.files.csv_cells import to_cell
from datamodules.files.csv_tables import write_csv
from datamodules.files.errors import UserError, listed
from datamodules.images.read import ImageReadError, read_image
from datamodules.splits import list_split
from scripts.report.label_doubts import Doubts, doubt_labels

SHOWN = 24
SIDE = 240  # pixels of a picture: whole and as it is, since a person is to judge it


class RankedLabel(NamedTuple):
    """A row of the table.

    Attributes:
        rank: From 1, the least probable label first.
        image_name: ``<class>/<name>``.
        label: The class that the data set says.
        suggested: The most probable other class.
        p_label: Probability of the label.
        p_suggested: Probability of the suggested class.
        doubted: Whether the label is likely to be wrong.
    """

    rank: int
    image_name: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float
    doubted: bool


@dataclass(frozen=True)
class LabelsToCheck:
    """What the models of a cross-validation think of the labels.

    Attributes:
        source: File of their probabilities.
        ranking: All images with probabilities, the least probable label first.
        accuracy: Share of these whose label is the most probable class.
        unreadable: Number of images without probabilities.
        absent: Number of training images that the file does not name.
        pictures: The first images of the ranking, a PNG file.
    """

    source: Path
    ranking: list[RankedLabel]
    accuracy: float
    unreadable: int
    absent: int
    pictures: bytes

    @property
    def doubted(self) -> int:
        """Number of images whose label is doubted."""
        return sum(image.doubted for image in self.ranking)

    @property
    def shown(self) -> list[tuple[int | str, ...]]:
        """The cells about the pictures' images."""
        return [
            (*image[:4], f"{image.p_label:.2g}", f"{image.p_suggested:.3f}", "yes" if image.doubted else "no")
            for image in self.ranking[:SHOWN]
        ]


def out_of_fold_of(run: RunFolder) -> Path | None:
    """Returns the probabilities of the ablation over folds to which a run belongs; None if it belongs to none."""
    of_fold = run.path.resolve().parent
    path = of_fold.parent / OUT_OF_FOLD_TABLE
    return path if re.fullmatch("fold_[0-9]+", of_fold.name) and path.is_file() else None


def check_labels(source: Path, data: ImageFolderDataModule) -> LabelsToCheck:
    """Ranks the labels of the training images, from the least to the most probable, and draws the first ones.

    Args:
        source: Probabilities from models that did not train on the image.
        data: The data set, which is not changed.

    Raises:
        UserError: The file cannot be used, or names images that the data set does not have.
    """
    found = read_out_of_fold(source, data.classes)
    train = data.data_set.require("train")
    files, _ = list_split(train, data.classes)
    paths = {image.name: image.path for images in files.values() for image in images}
    of_class = {image.name: name for name, images in files.items() for image in images}
    names = data.classes.names
    if other := [
        f"{name} ({names[target]})"
        for name, target in zip(found.names, found.label, strict=True)
        if of_class.get(name) != names[target]
    ]:
        raise UserError(
            f"{source} names images and labels that {train.where} does not have, {listed(other)}: {WAY_OUT} for these "
            "images, or pass --data.root"
        )
    readable = found.readable()
    if not readable.names:
        raise UserError(f"{source} has no probabilities: {WAY_OUT}")
    ranking = list(_ranked(readable, doubt_labels(readable.probability, readable.label), names))
    return LabelsToCheck(
        source,
        ranking,
        float(readable.right.mean()),
        unreadable=len(found.names) - len(readable.names),
        absent=len(paths) - len(found.names),
        pictures=_pictures(ranking[:SHOWN], paths, data.max_pixels),
    )


def write_labels_to_check(path: Path, labels: LabelsToCheck) -> None:
    """Writes the whole ranking; names are spelled by ``csv_cells``."""
    rows = (
        [str(rank), *map(to_cell, texts), f"{p_label:.9g}", f"{p_suggested:.9g}", str(int(doubted))]
        for rank, *texts, p_label, p_suggested, doubted in labels.ranking
    )
    with atomic_file(path) as temporary:
        write_csv(temporary, RankedLabel._fields, rows)


def _ranked(found: OutOfFold, doubts: Doubts, classes: Sequence[str]) -> Iterator[RankedLabel]:
    for rank, image in enumerate(doubts.order, 1):
        label, suggested = int(found.label[image]), int(doubts.suggested[image])
        p_label, p_suggested = (float(found.probability[image, position]) for position in (label, suggested))
        yield RankedLabel(
            rank, found.names[image], classes[label], classes[suggested], p_label, p_suggested,
            bool(doubts.doubted[image]),
        )  # fmt: skip


def _pictures(ranking: Sequence[RankedLabel], paths: Mapping[str, str], max_pixels: int) -> bytes:
    images, titles = [], []
    for image in ranking:
        try:
            picture = read_image(paths[image.image_name], max_pixels, shorter_side=SIDE)
        except ImageReadError:  # since its probabilities were computed
            picture = Image.new("RGB", (SIDE, SIDE), "white")
        picture.thumbnail((SIDE, SIDE))
        images.append(np.asarray(picture))
        titles.append(
            f"{image.rank}. {short(PurePosixPath(image.image_name).name)}\nlabel {short(image.label)}: "
            f"p = {image.p_label:.2g}\nsuggested {short(image.suggested)}: {image.p_suggested:.2f}"
        )
    return to_png(images_figure(images, titles))
