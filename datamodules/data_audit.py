"""Looks at every file of a data set, as a run would, and reports what it finds; changes nothing."""

import hashlib
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.class_index import natural_key
from datamodules.files.errors import UserError
from datamodules.image_folder import ImageFolderDataModule
from datamodules.images.find import ImageFile, ImageFiles
from datamodules.images.location import shown
from datamodules.images.read import MAX_PIXELS, ImageReadError, open_image, orientation, upright_rgb
from datamodules.sources.data_set import DataSet
from datamodules.sources.source import Source
from datamodules.split_names import SPLITS, visible_folders
from datamodules.workers.pool import map_in_processes

NO_CLASS = ""
Listing = dict[str, dict[str, ImageFiles]]  # by split and class


@dataclass(frozen=True)
class ImageFacts:
    """What a file holds.

    Attributes:
        path: The file.
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        mode: Pillow's name of the pixel format.
        rotated: Whether EXIF says that the stored image has to be rotated.
        digest: SHA-256 of size and decoded pixels, equal for equal pictures whatever their file's metadata.
        error: Why the file cannot be read; the other facts are empty then.
    """

    path: str
    width: int = 0
    height: int = 0
    mode: str = ""
    rotated: bool = False
    digest: str = ""
    error: str = ""


@dataclass(frozen=True)
class Findings:
    """What a data set holds, in plain types.

    Attributes:
        root: The folder that holds the data set.
        splits: For each split, ``images``, ``classes`` with their counts, ``imbalance`` of the largest to the smallest
            class, ``widths`` and ``heights`` as minimum, median, maximum, ``modes``, ``rotated`` paths, and
            ``passed_over`` in words.
        test_folders: Folders of ``test/`` that are not classes.
        unread_folders: Folders of ``root`` that no command reads.
        unreadable: ``path`` and ``reason`` of each image that cannot be read.
        duplicates: ``paths``, ``splits`` and ``classes`` of each picture that occurs more than once.
        class_differences: For each split, which classes of ``train`` it ``lacks`` and which are ``unknown`` there.
        held_out: A sentence on what a fit would hold out if there is no ``val/``.
        stops: Messages with which a run would end.
        warnings: Findings that stop no run and still deserve a look.
    """

    root: str
    splits: dict[str, dict[str, Any]]
    test_folders: list[str]
    unread_folders: list[str]
    unreadable: list[dict[str, str]]
    duplicates: list[dict[str, list[str]]]
    class_differences: dict[str, dict[str, list[str]]]
    held_out: str
    stops: list[str]
    warnings: list[str] = field(default_factory=list)


def image_facts(path: str, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decodes a file and describes it."""
    try:
        with open_image(path, max_pixels) as image:
            mode, rotated = image.mode, orientation(image) != 1
            pixels = upright_rgb(image)
            digest = hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()
    except ImageReadError as error:
        if error.machine:
            raise
        return ImageFacts(path, error=error.reason)
    return ImageFacts(path, *pixels.size, mode, rotated, digest)


def audit_data(
    root: Path,
    options: Mapping[str, Any] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    num_workers: int = 0,
    progress: Callable[[Iterator[ImageFacts], int], Iterable[ImageFacts]] = lambda facts, total: facts,
) -> Findings:
    """Reads every image of ``train``, ``val`` and ``test``, whatever their form, and runs the checks of every stage.

    Args:
        root: The folder that holds the data set.
        options: Options of ``ImageFolderDataModule`` that say where labels are.
        max_pixels: As for ``ImageFolderDataModule``.
        num_workers: Number of processes that decode; 0 for this one.
        progress: Wraps the iterator of facts, given their total number.

    Raises:
        UserError: A folder cannot be listed, or a decoding process was killed.
    """
    data = DataSet(root, options)
    listing, stops = _list(data)
    place = {
        image.path: (split, name)
        for split, classes in listing.items()
        for name, found in classes.items()
        for image in found.images
    }
    read = partial(image_facts, max_pixels=max_pixels)
    facts = {fact.path: fact for fact in progress(map_in_processes(read, list(place), num_workers), len(place))}
    groups: dict[str, list[str]] = defaultdict(list)
    for fact in facts.values():
        if not fact.error:
            groups[fact.digest].append(fact.path)
    unreadable = [{"path": shown(fact.path), "reason": fact.error} for fact in facts.values() if fact.error]
    held_out, stops_of_stages = _stages(root, options or {}, listing, max_pixels)
    stops += [sentence for sentence in stops_of_stages if sentence not in stops]
    everywhere = data.labelled or _is_one_folder(data)
    return Findings(
        root=str(root),
        splits={split: _describe(classes, facts) for split, classes in listing.items()},
        test_folders=_subfolders(root / "test") if [*listing.get("test", ())] == [NO_CLASS] else [],
        unread_folders=[] if everywhere else [name for name in _subfolders(root) if name not in SPLITS],
        unreadable=unreadable,
        duplicates=[
            {
                "paths": [*map(shown, paths)],
                "splits": list(dict.fromkeys(place[path][0] for path in paths)),
                "classes": list(dict.fromkeys(place[path][1] for path in paths if place[path][1] != NO_CLASS)),
            }
            for paths in groups.values()
            if len(paths) > 1
        ],
        class_differences=_class_differences(listing),
        held_out=held_out,
        stops=stops + ([f"unreadable images: {len(unreadable)}, see --data.on_bad_image"] if unreadable else []),
    )


def _list(data: DataSet) -> tuple[Listing, list[str]]:
    """Lists images by split and class, and the messages with which splits could not be listed.

    ``test`` without any class of ``train`` is unlabelled, as are images that a prediction reads and a test does not.
    """
    listing: Listing = {}
    stops: list[str] = []
    for split in SPLITS:
        try:
            source = data.find(split)
            if source and (split != "test" or data.test_is_labelled()):
                listing[split] = _by_class(source)
        except UserError as error:
            stops += [str(error)] if str(error) not in stops else []
    try:
        to_predict = data.find_to_predict()
        unlabelled = to_predict.images() if to_predict else ImageFiles()
    except UserError:  # which the stages tell
        return listing, stops
    labelled = {image.path for found in listing.get("test", {}).values() for image in found.images}
    rest = [image for image in unlabelled.images if image.path not in labelled]
    if to_predict and (rest or "test" not in listing):
        listing.setdefault("test", {})[NO_CLASS] = replace(unlabelled, images=rest)
    return listing, stops


def _by_class(source: Source) -> dict[str, ImageFiles]:
    """Lists images by class; what a run refuses, such as a single class, by the folders that they are in."""
    try:
        by_class, rest = source.by_class(source.class_names())
    except UserError:
        rest = source.images()
        folders: dict[str, list[ImageFile]] = defaultdict(list)
        for image in rest.images:
            folders[image.name.rpartition("/")[0].partition("/")[0]].append(image)
        by_class = {name: ImageFiles(images) for name, images in folders.items()}
    return {**by_class, NO_CLASS: replace(rest, images=by_class.get(NO_CLASS, ImageFiles()).images)}


def _is_one_folder(data: DataSet) -> bool:
    with suppress(UserError):  # which the listing tells
        return data.is_one_folder
    return False


def _class_differences(listing: Listing) -> dict[str, dict[str, list[str]]]:
    """Lists for each split whose classes are not those of ``train/`` which are missing and which are unknown."""
    named = {split: classes.keys() - {NO_CLASS} for split, classes in listing.items()}
    train = named.get("train")
    differences = {
        split: {"lacks": sorted(train - names, key=natural_key), "unknown": sorted(names - train, key=natural_key)}
        for split, names in named.items()
        if train and (names or split != "test")  # which may have no labels
    }
    return {split: difference for split, difference in differences.items() if any(difference.values())}


def _subfolders(folder: Path) -> list[str]:
    return sorted(map(os.path.basename, visible_folders(folder)), key=natural_key)


def _describe(classes: dict[str, ImageFiles], facts: dict[str, ImageFacts]) -> dict[str, Any]:
    passed_over = ImageFiles()
    for found in classes.values():
        passed_over.add(found)
    counts = {name: len(found.images) for name, found in classes.items() if name != NO_CLASS}
    images = [facts[image.path] for found in classes.values() for image in found.images]
    readable = [fact for fact in images if not fact.error]
    return {
        "images": len(images),
        "classes": counts,
        "imbalance": max(counts.values()) / min(counts.values()) if len(counts) > 1 and all(counts.values()) else None,
        "widths": _spread([fact.width for fact in readable]),
        "heights": _spread([fact.height for fact in readable]),
        "modes": dict(Counter(fact.mode for fact in readable).most_common()),
        "rotated": [shown(fact.path) for fact in readable if fact.rotated],
        "passed_over": passed_over.passed_over(),
    }


def _spread(values: list[int]) -> list[int]:
    return [min(values), round(statistics.median(values)), max(values)] if values else []


def _stages(root: Path, options: Mapping[str, Any], listing: Listing, max_pixels: int) -> tuple[str, list[str]]:
    """Returns what a fit would hold out, and the messages with which a stage would end."""
    test = listing.get("test", {})
    stages = ["fit", *(["predict"] if test else []), *(["test"] if test.keys() - {NO_CLASS} else [])]
    sentences: list[str] = []
    try:
        data = ImageFolderDataModule(str(root), max_pixels=max_pixels, **options)
    except UserError as error:
        return "", [str(error)]
    for stage in stages:
        try:
            data.setup(stage)
        except UserError as error:
            sentences += [str(error)] if str(error) not in sentences else []
    return data.held_out, sentences
