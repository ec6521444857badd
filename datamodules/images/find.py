"""Finds the image files of a folder, each once, and counts what is passed over."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from datamodules.class_index import natural_key
from datamodules.files.errors import UserError, listed
from datamodules.images.location import file_of, shown

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
NO_SUFFIX = "without suffix"

Identity = tuple[int, ...]  # device, inode, and a member's offset: the real file, whatever its names
UNNUMBERED = 0xFFFFFFFF  # the inode that many file systems in user space list for every file


class ImageFile(NamedTuple):
    """One image of a data set.

    Attributes:
        name: What it is called, whatever the form of the data set: its place, with slashes, in what was listed, which
            is a folder, a split or, from ``Source.by_class``, a class. In ``Files`` it is ``<class>/<place>``.
        path: Where it lies, for ``read_image``.
        group: What its labels file says of the object it shows; images of one object stay together.
    """

    name: str
    path: str
    group: str = ""


@dataclass
class ImageFiles:
    """What a scan found.

    Attributes:
        images: The images, in natural order of their names.
        again: Links to one that is among ``images`` already.
        loops: Links to a folder that was entered already.
        dangling: Links to nothing, or to themselves.
        unlabelled: Images that the file with the labels does not name.
        hidden: Number of files and folders whose name begins with a dot.
        other: Number of files that are not images, by suffix.
        real: Resolved paths of the real files behind ``images``, by identity, or by resolved path if the file system
            does not list identities. Of archives, the archive itself, and the members that have several names.
    """

    images: list[ImageFile] = field(default_factory=list)
    again: list[ImageFile] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    hidden: int = 0
    other: Counter[str] = field(default_factory=Counter)
    real: dict[Identity | str, str] = field(default_factory=dict)

    def passed_over(self, but_again: bool = False) -> str:
        """Says in words what was passed over, without ``again`` if ``but_again``; empty if there was nothing."""
        suffixes = listed([f"{count} {suffix}" for suffix, count in self.other.most_common()])
        parts = [f"{self.hidden} hidden"] if self.hidden else []
        parts += [f"{self.other.total()} of other types ({suffixes})"] if self.other else []
        for paths, what in (
            ([] if but_again else [shown(image.path) for image in self.again], "links to images listed already"),
            (self.loops, "links to folders entered already"),
            (self.dangling, "dangling links"),
            (self.unlabelled, "images without a row"),
        ):
            parts += [f"{len(paths)} {what} ({listed(paths)})"] if paths else []
        return ", ".join(parts)

    def add(self, other: "ImageFiles") -> None:
        """Adds everything but the images of another scan."""
        self.again += other.again
        self.loops += other.loops
        self.dangling += other.dangling
        self.unlabelled += other.unlabelled
        self.hidden += other.hidden
        self.other += other.other
        self.real |= other.real

    def shared_with(self, other: "ImageFiles") -> list[str]:
        """Lists the real files that are in ``other`` too, whatever names symbolic and hard links give them."""
        common = ((path, other.real[key]) for key, path in self.real.items() if key in other.real)
        return sorted(
            {shown(one) for one, two in common if os.path.samefile(file_of(one), file_of(two))}, key=natural_key
        )


def find_images(folder: Path) -> ImageFiles:
    """Lists the image files below ``folder``, of any depth; opens none.

    Links are followed, each folder is entered once, and each real file is listed once, under its own name rather than
    a link's. A folder's listing tells files apart by their inodes: a call for each file would take twice as long.

    Raises:
        UserError: A folder cannot be listed.
    """
    found = ImageFiles()
    file_links: list[str] = []

    def image(path: str) -> ImageFile:
        return ImageFile(path[len(os.path.join(folder, "")) :].replace(os.sep, "/"), path)

    for entry, device, real_folder in _walk(str(folder), found):
        if not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
            found.other[os.path.splitext(entry.name)[1].lower() or NO_SUFFIX] += 1
        elif entry.is_symlink():
            file_links.append(entry.path)
        else:
            found.images.append(image(entry.path))
            real_path = os.path.join(real_folder, entry.name)
            found.real[real_path if entry.inode() == UNNUMBERED else (device, entry.inode())] = real_path
    for link in sorted(file_links, key=natural_key):  # after the real files, whose own names count
        identity, real_path = _identity(os.stat(link)), os.path.realpath(link)
        (found.again if {identity, real_path} & found.real.keys() else found.images).append(image(link))
        found.real |= {identity: real_path, real_path: real_path}
    for images in (found.images, found.again):
        images.sort(key=lambda image: natural_key(image.name))
    for paths in (found.loops, found.dangling):
        paths.sort(key=natural_key)
    return found


def _walk(folder: str, found: ImageFiles) -> Iterator[tuple[os.DirEntry[str], int, str]]:
    """Yields every file below ``folder``, its device, and the resolved path of the folder that it is in.

    Links to folders wait until all real folders are done, so that a file's name does not depend on which way to it the
    file system happens to list first.
    """
    entered: set[Identity] = set()
    links: list[str] = []
    folders = [folder]
    while folders or links:
        links.sort(key=natural_key, reverse=True)
        current = (folders or links).pop()
        try:
            identity = _identity(os.stat(current))
            if identity in entered:
                found.loops.append(current)
                continue
            entered.add(identity)
            real_folder = os.path.realpath(current)
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        found.hidden += 1
                    elif entry.is_symlink() and not os.path.exists(entry.path):
                        found.dangling.append(entry.path)
                    elif not entry.is_dir():
                        yield entry, identity[0], real_folder
                    elif entry.is_symlink():
                        links.append(entry.path)
                    else:
                        folders.append(entry.path)
        except OSError as error:
            raise UserError(
                f"cannot list the images in {current} ({error.strerror}): make it readable or remove it"
            ) from error


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino
