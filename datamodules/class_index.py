"""The class contract: a class is a name, and every part of a project agrees on the order of classes."""

import hashlib
import json
import os
import re
from collections.abc import Iterable

from datamodules.files.errors import UserError, listed
from datamodules.lookalike_names import as_seen, spelled_apart


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Returns a sort key by which numbers in names count as numbers; between ``01`` and ``1``, spelling decides.

    Paths have the same order on every system.

    Example:
        >>> sorted(["10", "2", "b10", "b2"], key=natural_key)
        ['2', '10', 'b2', 'b10']
    """
    name = name.replace(os.sep, "/")
    parts = re.split(r"([0-9]+)", name)  # text and digits alternate, so that positions compare like with like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def could_be_folder(name: str) -> bool:
    """Tells whether a class of this name can be a folder, as some forms of a data set need."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can hold
        return False
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


class ClassIndex:
    """The class names in their order; a class's index is its position.

    Args:
        names: Class names in the order of the network's outputs.

    Raises:
        UserError: There are fewer than two names, or one comes twice.

    Example:
        >>> ClassIndex(["cat", "dog"]).position("dog")
        1
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._positions = {name: position for position, name in enumerate(self.names)}
        if len(self.names) < 2:
            raise UserError(f"a classifier needs at least 2 classes, got {list(self.names)}: add images of another")
        if len(self._positions) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1}, key=natural_key)
            raise UserError(f"class names must be unique, got {listed(twice)} more than once: remove the repetition")

    def __len__(self) -> int:
        return len(self.names)

    def position(self, name: str) -> int:
        """Returns the index of class ``name``."""
        return self._positions[name]

    @property
    def digest(self) -> str:
        """SHA-256 of the names in order, in hexadecimal, which differs if the names or their order differ."""
        return hashlib.sha256(json.dumps(self.names, ensure_ascii=True).encode()).hexdigest()

    def require_same(self, other: "ClassIndex", expected_from: str, came_from: str) -> None:
        """Checks that ``other`` has the same classes; their order is this one's to decide.

        Raises:
            UserError: A name is in only one of the two.
        """
        missing = [name for name in self.names if name not in other._positions]
        unknown = [name for name in other.names if name not in self._positions]
        by_look = {as_seen(name): name for name in unknown}
        respelled = {name: by_look[as_seen(name)] for name in missing if as_seen(name) in by_look}
        missing = [name for name in missing if name not in respelled]
        unknown = [name for name in unknown if name not in respelled.values()]
        faults = [f"spells {spelled_apart(respelled)}"] if respelled else []
        faults += [f"lacks {listed(missing)}"] if missing else []
        faults += [f"also has {listed(unknown)}"] if unknown else []
        if faults:
            raise UserError(
                f"{came_from} must have the same {len(self)} classes as {expected_from}, but it "
                f"{' and '.join(faults)}: add, remove or rename classes"
            )
