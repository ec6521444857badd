"""The folders of an archive that hold all of a split, such as ``train/``, and are neither classes nor in any name."""

import posixpath
from collections import defaultdict
from collections.abc import Iterable

from datamodules.split_names import SPLITS


def above_all(places: Iterable[str]) -> str:
    """Returns the deepest folder that holds all places.

    Example:
        >>> above_all(["data/train/1.jpg", "data/train/more/2.jpg"])
        'data/train'
    """
    places = [*places]
    ends = (min(places, default=""), max(places, default=""))  # what they share, all do
    return posixpath.commonpath([posixpath.dirname(place) for place in ends])


def above_split(places: Iterable[str]) -> str:
    """Returns the deepest of the folders that hold all places which is called like a split; empty if there is none.

    Others are part of the names of images without classes, as they are below a folder.

    Example:
        >>> above_split(["data/test/all/1.jpg", "data/test/all/2.jpg"]), above_split(["all/1.jpg"])
        ('data/test', '')
    """
    parts = above_all(places).split("/")
    end = max((number for number, part in enumerate(parts, start=1) if part in SPLITS), default=0)
    return "/".join(parts[:end])


def above_classes(with_images: set[str], folders: Iterable[str]) -> str:
    """Returns the folder of the class folders: the first that holds images itself, or not just one other folder.

    A folder without others is a class.

    Args:
        with_images: The folders that images lie in directly.
        folders: All others, whether there is an image below them or not.

    Example:
        >>> above_classes({"data/cat/inside", "data/cat/outside"}, ["data/dog"])
        'data'
    """
    inside: dict[str, set[str]] = defaultdict(set)
    for folder in (*with_images, *folders):
        while folder and folder not in inside[above := posixpath.dirname(folder)]:
            inside[above].add(folder)
            folder = above
    place = ""
    while place not in with_images and len(inside[place]) == 1 and inside[only := next(iter(inside[place]))]:
        place = only
    return place
