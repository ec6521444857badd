"""Finds the image files of a folder, each once, and counts what it passes over."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.class_index import natural_key
from datamodules.errors import UserError, listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass
class ImageFiles:
    """What a scan found.

    Attributes:
        paths: The image files, in natural order of their place in the folder.
        again: Links to an image that is among ``paths`` already.
        loops: Links to a folder that was entered already.
        dangling: Links to nothing, and links that go round in circles.
        hidden: Number of files and folders whose name begins with a dot.
        other: Files that are no images, counted by suffix.
    """

    paths: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    hidden: int = 0
    other: Counter[str] = field(default_factory=Counter)

    def passed_over(self) -> str:
        """What was not listed, in words; empty where there was nothing."""
        suffixes = listed([f"{count} {suffix}" for suffix, count in self.other.most_common()])
        parts = [f"{self.hidden} hidden"] if self.hidden else []
        parts += [f"{self.other.total()} of other types ({suffixes})"] if self.other else []
        for links, what in (
            (self.again, "links to images listed already"),
            (self.loops, "links to folders entered already"),
            (self.dangling, "dangling links"),
        ):
            parts += [f"{len(links)} {what} ({listed(links)})"] if links else []
        return ", ".join(parts)

    def add(self, other: "ImageFiles") -> None:
        """Counts what another scan passed over to this one's."""
        self.again += other.again
        self.loops += other.loops
        self.dangling += other.dangling
        self.hidden += other.hidden
        self.other += other.other


def find_images(folder: Path) -> ImageFiles:
    """Lists the image files below ``folder``, of any depth; opens none.

    Links are followed, each folder is entered once and each real file is listed once, under its own name rather than a
    link's.

    Raises:
        UserError: A folder cannot be listed.
    """
    found = ImageFiles()
    listed_files: set[tuple[int, int]] = set()  # device and inode
    entered: set[tuple[int, int]] = set()
    file_links: dict[str, tuple[int, int]] = {}
    folder_links: list[str] = []
    pending = [str(folder)]
    while pending or folder_links:
        folder_links.sort(key=natural_key, reverse=True)
        by_link = not pending  # real places first, so that a name does not depend on which way was found first
        current = folder_links.pop() if by_link else pending.pop()
        try:
            status = os.stat(current)
            if (status.st_dev, status.st_ino) in entered:
                if by_link:
                    found.loops.append(current)
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        found.hidden += 1
                    elif entry.is_symlink() and not os.path.exists(entry.path):
                        found.dangling.append(entry.path)
                    elif entry.is_dir():
                        (folder_links if entry.is_symlink() else pending).append(entry.path)
                    elif not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
                        found.other[os.path.splitext(entry.name)[1].lower() or "without suffix"] += 1
                    elif entry.is_symlink():
                        target = entry.stat()
                        file_links[entry.path] = (target.st_dev, target.st_ino)
                    else:
                        found.paths.append(entry.path)
                        listed_files.add((status.st_dev, entry.inode()))
        except OSError as error:
            raise UserError(
                f"expected to list the images in {current}, which failed ({error.strerror}): mend or remove it"
            ) from error
    for link in sorted(file_links, key=natural_key):
        (found.again if file_links[link] in listed_files else found.paths).append(link)
        listed_files.add(file_links[link])
    for paths in (found.paths, found.again, found.loops, found.dangling):
        paths.sort(key=lambda path: natural_key(path[len(str(folder)) + 1 :]))
    return found
