"""What an image's name in a table may mean: the file's stem, its name, or its place below a folder."""

import os
from collections import defaultdict
from collections.abc import Iterable

from datamodules.lookalike_names import composed


class Spellings:
    """Finds files by any of their spellings.

    Args:
        place: Each file's place below its folder, by path.

    Attributes:
        paths: The files that each spelling may mean: all that share it, in its fullest sense.

    Example:
        >>> spellings = Spellings({"t/a/1.jpg": "a/1.jpg", "t/b/1.jpg": "b/1.jpg"})
        >>> spellings.path("a/1"), spellings.path("1")
        ('t/a/1.jpg', '')
    """

    def __init__(self, place: dict[str, str]) -> None:
        self.paths: dict[str, list[str]] = {}
        for kind in zip(*map(spellings_of, place.values()), strict=True):
            self.paths |= grouped(zip(kind, place, strict=True))
        self._by_form: dict[str, set[str]] = defaultdict(set)
        for spelling, paths in self.paths.items():
            self._by_form[composed(spelling)].update(paths)

    def path(self, spelling: str) -> str:
        """Returns the path of the only file that is meant, or an empty string."""
        meant = self.paths.get(spelling) or [*self._by_form.get(composed(spelling), ())]
        return meant[0] if len(meant) == 1 else ""


def spellings_of(place: str) -> tuple[str, str, str, str]:
    """Returns the names of the file at ``place``, each fuller than those before it.

    >>> spellings_of("a/1.jpg")
    ('1', 'a/1', '1.jpg', 'a/1.jpg')
    """
    name = os.path.basename(place)
    return os.path.splitext(name)[0], os.path.splitext(place)[0], name, place


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Collects the second members of pairs by the first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, path in pairs:
        groups[name].append(path)
    return groups
