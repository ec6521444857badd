"""A split in tar or zip files, read in place."""

import functools
import itertools
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.archives.index import HIDDEN, Index, pass_over
from datamodules.archives.kept_index import open_index
from datamodules.archives.series import require_series, series_name
from datamodules.class_index import natural_key
from datamodules.files.errors import UserError, listed
from datamodules.images.find import Identity, ImageFile, ImageFiles
from datamodules.images.location import member
from datamodules.sources.web_dataset import label_suffix, labelled_classes


class OpenShard(NamedTuple):
    """One archive of a split, with its status when its index was made."""

    archive: str
    contents: Index
    status: os.stat_result


class Archived:
    """Images of a class in its folder, or with ``key.cls`` or ``key.json`` beside each; see ``Source``.

    Folders that hold all images of the split, such as ``train/``, are no classes and in no name.

    Args:
        paths: ``.tar`` files or ``.zip`` files with stored images, one or a numbered series.
        class_list: A file with the name of a class in each line, which the numbers in ``.cls`` count from 0.
        label_column: The field of ``.json`` that holds the label; by default found by its name.

    Raises:
        UserError: A series is incomplete.
    """

    def __init__(
        self, paths: Sequence[Path], class_list: str | Path | None = None, label_column: str | None = None
    ) -> None:
        self.paths = sorted(paths, key=lambda path: natural_key(str(path)))
        self.where = series_name(self.paths)
        self.class_list = Path(class_list) if class_list else None
        self.label_column = label_column
        if len(self.paths) > 1:  # one alone may be asked for
            require_series(self.paths)

    def class_names(self) -> list[str]:
        """Takes the folders, or the labels that occur, in natural order.

        Raises:
            UserError: There are fewer than two, or as ``by_class`` tells.
        """
        if (labels := self._labels) is not None:
            names = {*labels.values()}
        else:
            names = {name for folder in self._folders() if (name := self._class_of(folder))}
        if len(names) < 2:
            only = self.images().passed_over()
            raise UserError(
                f"{self.where} must hold a folder for each of 2 or more classes, or a .cls or .json for each image, "
                f"found {listed(sorted(names)) or 'no class'}{f' and passed over {only}' if only else ''}"
            )
        return sorted(names, key=natural_key)

    def by_class(self, names: Sequence[str]) -> tuple[dict[str, ImageFiles], ImageFiles]:
        """Lists the images of each class.

        Raises:
            UserError: An archive is damaged, unsafe or compressed, images have one name, images lie beside the class
                folders, or as ``labelled_classes`` tells.
        """
        if (labels := self._labels) is not None:
            start = len(self._common_folder)
            found = self._list(lambda place: (labels[place], place[start:]), lambda folder: "")
        else:
            start = len(self._above_classes)
            if stray := [place for place in self._places() if "/" not in place[start:]]:
                raise UserError(
                    f"{self.where} holds images beside its class folders, {listed(sorted(stray, key=natural_key))}: "
                    "move them into their class, or give each a .cls or .json"
                )
            found = self._list(lambda place: _first_part(place[start:]), self._class_of)
        found[""].real |= self._archives()  # which classes share, and splits must not
        return {name: found[name] for name in names}, found[""]

    def images(self) -> ImageFiles:
        """Lists the images of all classes.

        Raises:
            UserError: As ``by_class`` tells of archives.
        """
        start = len(self._common_folder)
        found = self._list(lambda place: ("", place[start:]), lambda folder: "")[""]
        found.real |= self._archives()
        return found

    def _archives(self) -> dict[Identity | str, str]:
        return {(shard.status.st_dev, shard.status.st_ino): shard.archive for shard in self._shards}

    @functools.cached_property
    def _shards(self) -> list[OpenShard]:
        shards = [OpenShard(str(path), *open_index(str(path), self.label_column)) for path in self.paths]
        if len(shards) > 1:
            counts = Counter(place for shard in shards for place in shard.contents.names)
            if len(counts) < counts.total():
                twice = [place for place, count in counts.items() if count > 1]
                raise UserError(
                    f"several of the shards {self.where} have an image named {listed(twice)}: give each its own name"
                )
        return shards

    @functools.cached_property
    def _labels(self) -> dict[str, str] | None:
        """The class of each image by its place, None if folders are the classes."""
        if self._label_suffix is None:
            return None
        return labelled_classes(self._indexes(), self._label_suffix, self.class_list, self.where)

    @functools.cached_property
    def _label_suffix(self) -> str | None:
        start = len(self._common_folder)
        on_top = any("/" not in place[start:] for place in self._places())
        return label_suffix(self._indexes(), self.label_column, on_top)

    @functools.cached_property
    def _common_folder(self) -> str:
        """The folder that holds all images, with its slash."""
        ends = (min(self._places(), default=""), max(self._places(), default=""))  # what they share, all do
        folder = posixpath.commonpath([posixpath.dirname(place) for place in ends])
        return f"{folder}/" if folder else ""

    @functools.cached_property
    def _above_classes(self) -> str:
        """The folder of the class folders; if all images are in one folder without others, that one is a class."""
        start = len(self._common_folder)
        if any("/" in place[start:] for place in self._places()):
            return self._common_folder
        above = posixpath.dirname(self._common_folder.rstrip("/"))
        return f"{above}/" if above else ""

    def _class_of(self, folder: str) -> str | None:
        """Returns the class that a folder belongs to, None if it is above or beside the classes."""
        above = self._above_classes
        return folder[len(above) :].partition("/")[0] or None if folder.startswith(above) else None

    def _indexes(self) -> list[Index]:
        return [shard.contents for shard in self._shards]

    def _places(self) -> Iterator[str]:
        return itertools.chain.from_iterable(shard.contents.names for shard in self._shards)

    def _folders(self) -> Iterator[str]:
        """Yields the folders of all members, and those that are empty."""
        yield from {place.rpartition("/")[0] for place in self._places()}
        for shard in self._shards:
            yield from {folder for folder, _ in shard.contents.passed_over}
            others = (*shard.contents.label_members(), *shard.contents.dangling)
            yield from {place.rpartition("/")[0] for place in others}

    def _list(
        self, group_and_name: Callable[[str], tuple[str, str]], group_of: Callable[[str], str | None]
    ) -> dict[str, ImageFiles]:
        """Lists images in groups.

        Args:
            group_and_name: Returns the group of an image, and its name there.
            group_of: Returns the group that counts what is passed over in a folder, None if none does.
        """
        found: dict[str, ImageFiles] = defaultdict(ImageFiles)
        pointers: list[tuple[str, ImageFile, Identity]] = []
        for archive, index, status in self._shards:
            offsets, counts = np.unique(index.offsets, return_counts=True)
            several = {*offsets[counts > 1].tolist(), *index.offsets[index.links].tolist()}
            ranges = zip(index.names, index.offsets.tolist(), index.sizes.tolist(), index.links.tolist(), strict=True)
            for place, offset, size, is_link in ranges:
                group, name = group_and_name(place)
                image = ImageFile(name, member(archive, place, offset, size, status.st_mtime_ns))
                identity: Identity = (status.st_dev, status.st_ino, offset)
                if is_link:
                    pointers.append((group, image, identity))
                    continue
                found[group].images.append(image)
                if offset in several:
                    found[group].real[identity] = image.path
            self._count(index, archive, group_of, found)
        for group, image, identity in sorted(pointers, key=lambda pointer: natural_key(pointer[1].name)):
            (found[group].again if identity in found[group].real else found[group].images).append(image)
            found[group].real[identity] = image.path
        for files in found.values():
            files.images.sort(key=lambda image: natural_key(image.name))
        return found

    def _count(
        self, index: Index, archive: str, group_of: Callable[[str], str | None], found: dict[str, ImageFiles]
    ) -> None:
        """Adds what is passed over, and what may be a label but is none here."""
        passed_over = index.passed_over.copy()
        for place in index.label_members():
            if self._label_suffix is None or not place.lower().endswith(self._label_suffix):
                pass_over(passed_over, place)
        for (folder, what), count in passed_over.items():
            if (group := group_of(folder)) is None or not count:
                continue
            if what == HIDDEN:
                found[group].hidden += count
            else:
                found[group].other[what] += count
        for place in sorted(index.dangling, key=natural_key):
            if (group := group_of(place.rpartition("/")[0])) is not None:
                found[group].dangling.append(f"{archive}/{place}")


def _first_part(place: str) -> tuple[str, str]:
    first, _, rest = place.partition("/")
    return first, rest
