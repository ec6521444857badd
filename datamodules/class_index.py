"""The class contract: a class is its folder's name, and every part of a project agrees on their order."""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from datamodules.files.errors import UserError, listed
from datamodules.split_names import advice


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key by which ``"2"`` comes before ``"10"``; equal but for leading zeros, spelling decides."""
    parts = re.split(r"([0-9]+)", name)  # text and digits alternate, so that positions compare like with like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def as_seen(name: str) -> str:
    """The name without what does not show: how Unicode composes accents, and spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def spelled_apart(respelled: dict[str, str]) -> str:
    """Pairs of names that ``as_seen`` are the same, so that the difference shows."""
    pairs = listed([f"{name!a} as {other!a}" for name, other in respelled.items()])
    return f"{pairs} (which look the same)"


def look_alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names, escaped, that differ by what does not show, or by upper and lower case alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(as_seen(name).casefold(), []).append(ascii(name))
    return [group for group in groups.values() if len(group) > 1]


class ClassIndex:
    """The class names in their order; a class's index is its position.

    Args:
        names: In the order that the network's outputs have.

    Raises:
        UserError: Fewer than two names, or one twice.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._positions = {name: position for position, name in enumerate(self.names)}
        if len(self.names) < 2:
            raise UserError(f"expected at least 2 classes, got {list(self.names)}: make one folder for each class")
        if len(self._positions) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1}, key=natural_key)
            raise UserError(f"expected each class once, got {listed(twice)} more than once: remove the repetition")

    @classmethod
    def from_folder(cls, folder: Path) -> "ClassIndex":
        """The folder's direct subfolders in natural order; hidden ones are no classes.

        Raises:
            UserError: The folder does not exist, holds fewer than two, or a link to nothing.
        """
        if not folder.is_dir():
            raise UserError(
                f"expected a folder {folder} with one subfolder for each class, there is none: {advice(folder)}"
            )
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            names = sorted((entry.name for entry in visible if entry.is_dir()), key=natural_key)
            gone = [entry.name for entry in visible if entry.is_symlink() and not os.path.exists(entry.path)]
        if gone:
            raise UserError(f"expected class folders in {folder}, {listed(gone)} are links to nothing: mend them")
        if len(names) < 2:
            raise UserError(f"expected {folder} to hold a subfolder for each of 2 or more classes, found {len(names)}")
        return cls(names)

    def __len__(self) -> int:
        return len(self.names)

    def position(self, name: str) -> int:
        """The index of class ``name``."""
        return self._positions[name]

    @property
    def digest(self) -> str:
        """SHA-256 of the names in order, in hexadecimal: equal exactly where names and order are."""
        return hashlib.sha256(json.dumps(self.names, ensure_ascii=True).encode()).hexdigest()

    def require_same(self, other: "ClassIndex", expected_from: str, came_from: str) -> None:
        """Checks that ``other`` has the same classes; their order is this one's to decide.

        Raises:
            UserError: A name is in one and not in the other.
        """
        missing = [name for name in self.names if name not in other._positions]
        unknown = [name for name in other.names if name not in self._positions]
        by_look = {as_seen(name): name for name in unknown}
        respelled = {name: by_look[as_seen(name)] for name in missing if as_seen(name) in by_look}
        missing = [name for name in missing if name not in respelled]
        unknown = [name for name in unknown if name not in respelled.values()]
        faults = [f"spells {spelled_apart(respelled)}"] if respelled else []
        faults += [f"lacks {listed(missing)}"] if missing else []
        faults += [f"has the unknown {listed(unknown)}"] if unknown else []
        if faults:
            raise UserError(
                f"expected {came_from} to have the {len(self)} classes of {expected_from}, it {' and '.join(faults)}: "
                "add, remove or rename class folders"
            )
