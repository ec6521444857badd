"""What an archive holds: where its images lie, their labels, and what is passed over."""

import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from datamodules.archives.compressed import require_uncompressed
from datamodules.archives.label_members import read_label
from datamodules.archives.members import LABEL_SUFFIXES, Kind, Member, hidden_part, place_of, target_of
from datamodules.archives.tar_members import tar_members
from datamodules.archives.zip_members import zip_members
from datamodules.files.errors import UserError, listed
from datamodules.images.find import NO_SUFFIX, SUFFIXES

HIDDEN = "hidden"  # among suffixes, which begin with a dot
MAX_CHAIN = 40  # links in a row; as many as Linux follows


@dataclass
class Index:
    """The contents of an archive. All names are places in it.

    Attributes:
        names: The images, in the archive's order.
        offsets: Where the bytes of each begin, int64.
        sizes: How many there are, int64.
        links: Which images are symbolic links, bool.
        labels: The label in each member that holds one; see ``read_label``.
        faults: What is wrong with each of the others that may hold one, which matters only if labels are needed.
        passed_over: Number of members that are not images, by their folder and their suffix or ``HIDDEN``; 0 and an
            empty suffix for a folder.
        dangling: Links to nothing that the archive holds.
    """

    names: list[str] = field(default_factory=list)
    offsets: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    sizes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    links: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    labels: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[tuple[str, str]] = field(default_factory=Counter)
    dangling: list[str] = field(default_factory=list)

    def label_members(self) -> list[str]:
        """Returns the members that may hold labels."""
        return [*self.labels, *self.faults]


def members_of(path: str) -> Iterator[Member]:
    """Lists the members of a ``.tar`` or ``.zip`` file.

    Raises:
        UserError: It is compressed as a whole, or as ``tar_members`` and ``zip_members`` tell.
    """
    require_uncompressed(path)
    return zip_members(path) if path.lower().endswith(".zip") else tar_members(path)


def make_index(path: str, label_column: str | None) -> Index:
    """Reads the headers of an archive, and the members that may be labels.

    Args:
        path: A ``.tar`` or ``.zip`` file.
        label_column: As for ``read_label``.

    Raises:
        UserError: The archive is damaged or not such an archive, or names of members are unsafe or come twice.
    """
    index = Index()
    offsets, sizes, links = array("q"), array("q"), array("b")
    pointers: dict[str, Member] = {}  # links by place
    hidden: set[str] = set()
    twice: list[str] = []

    def add(place: str, file: Member, is_link: bool = False) -> None:
        if place.lower().endswith(SUFFIXES):
            index.names.append(place)
            offsets.append(file.offset)
            sizes.append(file.size)
            links.append(is_link)
        elif file.text is not None and place.lower().endswith(LABEL_SUFFIXES):
            twice.extend([place] if place in index.labels or place in index.faults else [])
            try:
                index.labels[place] = read_label(place, file.text, label_column)
            except ValueError as error:
                index.faults[place] = str(error)
        else:
            pass_over(index.passed_over, place)

    for member in members_of(path):
        place = place_of(member.name, path)
        if part := hidden_part(place):
            hidden.add(part)
        elif member.kind is Kind.FOLDER:
            index.passed_over[place, ""] += 0
        elif member.kind is Kind.FILE:
            add(place, member)
        elif member.kind in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK):
            twice += [place] if place in pointers else []
            pointers[place] = member
        else:
            pass_over(index.passed_over, place)
    files = _files(path) if pointers else {}
    for place, pointer in pointers.items():
        if target := _resolve(place, pointers, files):
            add(place, target, pointer.kind is Kind.SYMBOLIC_LINK)
        else:
            index.dangling.append(place)
    for part in hidden:
        index.passed_over[os.path.dirname(part), HIDDEN] += 1
    index.offsets, index.sizes, index.links = np.array(offsets), np.array(sizes), np.array(links, bool)
    if len(set(index.names)) < len(index.names):
        twice += [name for name, count in Counter(index.names).items() if count > 1]
    if twice:
        raise UserError(f"{path} has several members named {listed(twice)}: pack it again with each name once")
    return index


def pass_over(passed_over: Counter[tuple[str, str]], place: str) -> None:
    """Counts a member that is not an image."""
    folder, _, name = place.rpartition("/")
    passed_over[folder, os.path.splitext(name)[1].lower() or NO_SUFFIX] += 1


def _files(path: str) -> dict[str, Member]:
    """Lists the archive again, for links to what is hidden or no image by its name."""
    return {place_of(member.name, path): member for member in members_of(path) if member.kind is Kind.FILE}


def _resolve(place: str, pointers: dict[str, Member], files: dict[str, Member]) -> Member | None:
    """Follows links; None if they lead to nothing in the archive, to a folder, or to each other."""
    for _ in range(MAX_CHAIN):
        if place not in pointers:
            return files.get(place)
        place = target_of(place, pointers[place])
    return None
