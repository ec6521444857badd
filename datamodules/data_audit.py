"""Looks at every file of a data set, as a run would, and reports what it finds; changes nothing."""

import hashlib
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.class_index import natural_key
from datamodules.files.errors import UserError
from datamodules.image_folder import ImageFolderDataModule
from datamodules.images.find import ImageFiles, find_images
from datamodules.images.read import MAX_PIXELS, ImageReadError, open_image, orientation, upright_rgb
from datamodules.lookalike_names import as_seen
from datamodules.split_names import SPLITS, visible_folders
from datamodules.workers.pool import map_in_processes

NO_CLASS = ""


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
        root: The folder that holds the splits.
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
    *,
    max_pixels: int = MAX_PIXELS,
    num_workers: int = 0,
    progress: Callable[[Iterator[ImageFacts], int], Iterable[ImageFacts]] = lambda facts, total: facts,
) -> Findings:
    """Reads every image of ``train/``, ``val/`` and ``test/`` and runs the checks of every stage.

    Args:
        root: The folder that holds the splits.
        max_pixels: As for ``ImageFolderDataModule``.
        num_workers: Number of processes that decode; 0 for this one.
        progress: Wraps the iterator of facts, given their total number.

    Raises:
        UserError: A folder cannot be listed, or a decoding process was killed.
    """
    listing = {split: _list(root, split) for split in SPLITS if (root / split).is_dir()}
    place = {
        path: (split, name)
        for split, classes in listing.items()
        for name, found in classes.items()
        for path in (image.path for image in found.images)
    }
    read = partial(image_facts, max_pixels=max_pixels)
    facts = {fact.path: fact for fact in progress(map_in_processes(read, list(place), num_workers), len(place))}
    groups: dict[str, list[str]] = defaultdict(list)
    for fact in facts.values():
        if not fact.error:
            groups[fact.digest].append(fact.path)
    unreadable = [{"path": fact.path, "reason": fact.error} for fact in facts.values() if fact.error]
    held_out, stops = _stages(root, listing, max_pixels)
    return Findings(
        root=str(root),
        splits={split: _describe(classes, facts) for split, classes in listing.items()},
        test_folders=_subfolders(root / "test") if NO_CLASS in listing.get("test", {}) else [],
        unread_folders=[name for name in _subfolders(root) if name not in SPLITS],
        unreadable=unreadable,
        duplicates=[
            {
                "paths": paths,
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


def _list(root: Path, split: str) -> dict[str, ImageFiles]:
    """Lists files by class; ``test/`` without any class of ``train/`` is one folder of unlabelled images."""
    folders = _subfolders(root / split)
    if split == "test" and set(map(as_seen, folders)).isdisjoint(map(as_seen, _subfolders(root / "train"))):
        return {NO_CLASS: find_images(root / split)}
    return {name: find_images(root / split / name) for name in folders}


def _class_differences(listing: dict[str, dict[str, ImageFiles]]) -> dict[str, dict[str, list[str]]]:
    """Lists for each split whose classes are not those of ``train/`` which are missing and which are unknown."""
    train = listing.get("train", {}).keys()
    differences = {
        split: {
            "lacks": sorted(train - classes.keys(), key=natural_key),
            "unknown": sorted(classes.keys() - train, key=natural_key),
        }
        for split, classes in listing.items()
        if train and NO_CLASS not in classes
    }
    return {split: difference for split, difference in differences.items() if any(difference.values())}


def _subfolders(folder: Path) -> list[str]:
    return sorted(map(os.path.basename, visible_folders(folder)), key=natural_key)


def _describe(classes: dict[str, ImageFiles], facts: dict[str, ImageFacts]) -> dict[str, Any]:
    passed_over = ImageFiles()
    for found in classes.values():
        passed_over.add(found)
    counts = {name: len(found.images) for name, found in classes.items()}
    images = [facts[image.path] for found in classes.values() for image in found.images]
    readable = [fact for fact in images if not fact.error]
    return {
        "images": len(images),
        "classes": {name: count for name, count in counts.items() if name != NO_CLASS},
        "imbalance": max(counts.values()) / min(counts.values()) if len(counts) > 1 and all(counts.values()) else None,
        "widths": _spread([fact.width for fact in readable]),
        "heights": _spread([fact.height for fact in readable]),
        "modes": dict(Counter(fact.mode for fact in readable).most_common()),
        "rotated": [fact.path for fact in readable if fact.rotated],
        "passed_over": passed_over.passed_over(),
    }


def _spread(values: list[int]) -> list[int]:
    return [min(values), round(statistics.median(values)), max(values)] if values else []


def _stages(root: Path, listing: dict[str, dict[str, ImageFiles]], max_pixels: int) -> tuple[str, list[str]]:
    """Returns what a fit would hold out, and the messages with which a stage would end."""
    stages = ["fit", *(["predict"] if "test" in listing else [])]
    stages += ["test"] if NO_CLASS not in listing.get("test", {NO_CLASS: None}) else []
    sentences: list[str] = []
    try:
        data = ImageFolderDataModule(str(root), max_pixels=max_pixels)
    except UserError as error:
        return "", [str(error)]
    for stage in stages:
        try:
            data.setup(stage)
        except UserError as error:
            sentences += [str(error)] if str(error) not in sentences else []
    return data.held_out, sentences
