"""The images of a data set as shards name them, and what a data set of shards has in common with it."""

import os
from collections.abc import Callable
from pathlib import Path

from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.errors import UserError
from datamodules.groups import stay_together
from datamodules.images import location
from datamodules.images.find import ImageFile, ImageFiles
from datamodules.sources.data_set import DataSet
from datamodules.sources.source import Source
from datamodules.split_names import SPLITS, no_split
from datamodules.splits import list_split, require_apart
from scripts.console import printable

Images = dict[str, list[ImageFile]]  # by split


def list_to_pack(data: DataSet, say: Callable[[str], None]) -> Images:
    """Lists the images of each split that is there, in the order of classes and names.

    ``say`` is called with a line on what was passed over, if anything was.

    Raises:
        UserError: There is no split, a class has no image, or links put an image into two splits or classes, which
            copies in shards would hide.
    """
    images: Images = {}
    scans: dict[str, ImageFiles] = {}
    for split in SPLITS:
        if not (source := data.find(split)):
            continue
        again: list[ImageFile] = []
        if split == "test":
            _require_one_test(data, source)
        if split != "test" or data.test_is_labelled():
            files, scan = list_split(source, ClassIndex(source.class_names()))
            images[split] = [image for of_class in files.values() for image in of_class]
            for other, other_scan in scans.items():
                require_apart(other_scan, scan, other, split)
            scans[split] = scan
        else:
            scan = source.images()
            again = scan.again  # a prediction has a row for each name, links' too
            images[split] = sorted([*scan.images, *again], key=lambda image: natural_key(image.name))
        if remarks := scan.passed_over(but_again=bool(again)):
            say(f"{printable(source.where)}: passed over {printable(remarks)}")
    if not any(images.values()):
        raise no_split(data.root / "train")
    return images


def require_not_read(shards: list[Path], images: Images) -> None:
    """Checks that none of the shards is what is packed, whatever links lead to it.

    Raises:
        UserError: One is.
    """
    archives = {
        location.file_of(image.path)
        for of_split in images.values()
        for image in of_split
        if location.is_member(image.path)
    }
    for path in sorted(archives):
        if any(shard.samefile(path) for shard in shards):
            raise UserError(f"{path} is an input, so it is not overwritten: choose another --output")


def require_found(images: Images, output: Path) -> None:
    """Checks that a run will find the images under their names.

    Raises:
        UserError: It will not.
    """
    found = list_to_pack(DataSet(output, unfinished=True), lambda line: None)
    for split, expected in images.items():
        if [image.name for image in found.get(split, [])] != [image.name for image in expected]:
            raise UserError(f"the shards of {split} in {output} do not have its images: repeat the command")


def say_what_is_lost(root: Path, images: Images, say: Callable[[str], None]) -> None:
    """Says what a run reads from other forms of a data set and not from shards."""
    train = images.get("train", [])
    if twins := len(train) - len(stay_together(train)):
        say(
            f"train has {twins:,} hard links to other images of it; they become copies in the shards, so folds no "
            "longer keep them together"
        )
    template = root / "sample_submission.csv"
    if template.is_file():
        say(f"rows of a prediction: pass --data.template {printable(os.fspath(template))}, as it is not packed")


def _require_one_test(data: DataSet, tested: Source) -> None:
    """Checks that a prediction is of the images that are tested, as shards hold one ``test``.

    Raises:
        UserError: It is of others.
    """
    predicted = data.find_to_predict()
    if predicted and predicted is not tested and _paths(predicted.images()) != _paths(tested.images()):
        raise UserError(
            f"a prediction is of {predicted.where}, but a test is of other images, those of {tested.where}, and shards "
            "can hold only one test: move one of them away"
        )


def _paths(found: ImageFiles) -> set[str]:
    return {image.path for image in (*found.images, *found.again)}
