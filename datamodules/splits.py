"""Which images make up a split, class by class."""

import functools
import hashlib
from collections.abc import Callable, Sequence

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError, listed
from datamodules.images import location
from datamodules.images.find import ImageFiles
from datamodules.partition import Files, Partition
from datamodules.sources.data_set import DataSet
from datamodules.sources.source import Source
from datamodules.split_names import SPLITS, how_to_rename, lookalikes

ListOne = Callable[[Source], tuple[Files, ImageFiles]]


def classes_of(data: DataSet, expected: Sequence[str] | None) -> ClassIndex:
    """Takes the classes of a checkpoint, or else those of ``train``, and checks the splits that are there.

    Raises:
        UserError: There is no ``train``, a split has other classes, or as ``Source.class_names`` tells.
    """
    if expected:
        classes, source, train = ClassIndex(expected), "the checkpoint", None
    else:
        train = data.require("train")
        classes, source = ClassIndex(train.class_names()), train.where
    for split in ("train", "val"):
        if (found := data.find(split)) and found is not train:
            classes.require_same(ClassIndex(found.class_names()), source, found.where)
    return classes


def list_splits(
    data: DataSet, stage: str, classes: ClassIndex, partition: Partition, *, say: Callable[[str], None]
) -> tuple[dict[str, Files], str]:
    """Lists the splits that a stage needs, and checks that no image to measure has trained or chosen the weights.

    Args:
        data: The data set.
        stage: ``fit``, ``validate`` or ``test``.
        classes: The classes of each split.
        partition: Which images of ``train`` are held out, if there is no ``val``, and which train.
        say: Called with a line on what was passed over or held out, if anything was.

    Returns:
        Files by split, and a sentence on what is held out, empty if there is a ``val``.

    Raises:
        UserError: A split or a class's images are missing, or a file is in two splits or classes.
    """
    list_one = functools.partial(_list_and_say, classes=classes, say=say)
    if stage == "test":
        test = data.require("test")
        classes.require_same(ClassIndex(test.class_names()), "the checkpoint", test.where)
        return {"test": _list_to_measure("test", data, list_one)}, ""
    val, remark = data.find("val"), ""
    if val and stage != "fit":
        return {"val": _list_to_measure("val", data, list_one)}, ""
    if val:
        training, validation = _list_both(data, val, partition, list_one)
    else:
        train = data.require("train")
        training, validation = partition.divide(list_one(train)[0])
        remark = _held_out_remark(data, train, validation, partition)
        say(remark)
    if stage != "fit":
        return {"val": validation}, remark
    taken = partition.take(training)
    if partition.fraction < 1:
        say(f"--data.fraction {partition.fraction:g}: {_count(taken):,} of {_count(training):,} images train")
    return {"train": taken, "val": validation}, remark


def _list_and_say(source: Source, classes: ClassIndex, say: Callable[[str], None]) -> tuple[Files, ImageFiles]:
    files, found = list_split(source, classes)
    if remarks := found.passed_over():
        say(f"{source.where}: passed over {remarks}")
    return files, found


def _list_to_measure(split: str, data: DataSet, list_one: ListOne) -> Files:
    """Lists a split alone, and checks that it shares no file with those that train or choose the weights."""
    files, found = list_one(data.require(split))
    for earlier in SPLITS[: SPLITS.index(split)]:
        if other := data.find(earlier):
            require_apart(other.images(), found, earlier, split)
    return files


def _list_both(data: DataSet, val: Source, partition: Partition, list_one: ListOne) -> tuple[Files, Files]:
    """Lists ``train`` and ``val`` of a data set that has both."""
    if partition.folds:
        raise UserError(
            f"with {partition.folds} folds, images of train validate, but {val.where} is there to validate: leave out "
            "folds, or move the images of val into train"
        )
    validation, val_found = list_one(val)
    training, train_found = list_one(data.require("train"))
    require_apart(train_found, val_found, "train", "val")
    partition.require_groups_apart(training, validation)
    return training, validation


def list_split(source: Source, classes: ClassIndex) -> tuple[Files, ImageFiles]:
    """Lists images by class, and the sum of what was found and passed over.

    Raises:
        UserError: A class has no image, an image is of no class, or links put a file into two classes.
    """
    by_class, rest = source.by_class(classes.names)
    if empty := [name for name, found in by_class.items() if not found.images]:
        in_empty = ImageFiles()
        for name in empty:
            in_empty.add(by_class[name])
        other = in_empty.passed_over()
        raise UserError(
            f"every class of {source.where} must have an image, but there is none in {listed(empty)}"
            f"{f', only {other}: convert files to JPEG or PNG' if other else ': add images'}, or remove the class from "
            "every split"
        )
    total = ImageFiles()
    total.add(rest)
    for name, found in by_class.items():
        require_apart(total, found, f"the other classes of {source.where}", f"class {name}")
        total.add(found)
    files = {
        name: [image._replace(name=f"{name}/{image.name}") for image in found.images]
        for name, found in by_class.items()
    }
    return files, total


def require_apart(one: ImageFiles, other: ImageFiles, name_of_one: str, name_of_other: str) -> None:
    """Checks that no link, symbolic or hard, puts a file into both of two scans.

    Raises:
        UserError: A file is in both.
    """
    if shared := other.shared_with(one):
        raise UserError(
            f"links make {name_of_other} share {len(shared)} of its files with {name_of_one} ({listed(shared)}): "
            "remove the links"
        )


def _count(files: Files) -> int:
    return sum(map(len, files.values()))


def _held_out_remark(data: DataSet, train: Source, held_out: Files, partition: Partition) -> str:
    """Says which images validate for lack of ``val``, and which folders may be meant by it."""
    names = lookalikes(data.root / "val")
    unread = f"; if {' or '.join(names)} is meant, rename it to {data.root / 'val'}" if names else ""
    unread += how_to_rename("val", names)
    whole = ", whose folders are taken for classes," if data.is_one_folder else ""
    return (
        f"no {data.root / 'val'}: {partition.description}, {_count(held_out):,} images, "
        f"{'is' if partition.folds else 'are'} held out of {train.where}{whole} for validation{unread}"
    )


def fingerprint(names: Sequence[str], paths: Sequence[str], split: str) -> dict[str, int | str]:
    """Returns the number of images and a SHA-256 of their names and sizes in bytes (-1 if gone).

    Args:
        names: Names of the images, as ``ImageDataset`` has them.
        paths: Where they lie.
        split: The split that they are listed in; for held-out images ``train``.
    """
    digest, stat = hashlib.sha256(), location.remembering_stat()
    for name, path in zip(names, paths, strict=True):
        digest.update(f"{split}/{name}\t{location.size(path, stat)}\n".encode("utf-8", "surrogateescape"))
    return {"images": len(paths), "sha256": digest.hexdigest()}
