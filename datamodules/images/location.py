"""Where an image lies: in a file of its own, or as a member of an archive, which is read in place.

A location is a string, so that a million of them fit in a ``PathArray``: a file's path, or for a member what ``member``
makes. No path of a file holds a NUL, so that the two cannot be mistaken for each other.
"""

import functools
import io
import os
import threading
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

MAX_HANDLES = 128  # many systems allow a process 256 open files
BUFFER = 1 << 20  # bytes; most photos come in one read, which is what a network file system needs


Stat = Callable[[str], os.stat_result]


class _Place(NamedTuple):
    archive: str
    offset: int
    size: int
    mtime_ns: int | None


def member(archive: str, name: str, offset: int, size: int, mtime_ns: int | None = None) -> str:
    r"""Makes the location of an archive's member.

    Args:
        archive: Path of the archive.
        name: The member's name in it.
        offset: Where its bytes begin in the archive.
        size: How many there are.
        mtime_ns: Time of change of the archive for which this is true; None not to check it.

    Example:
        >>> member("train.tar", "cat/1.jpg", 512, 900)
        'train.tar/cat/1.jpg\x009 512 900'
    """
    checked = "" if mtime_ns is None else f" {mtime_ns}"
    return f"{archive}/{name}\0{len(archive)} {offset} {size}{checked}"


def shown(path: str) -> str:
    """Returns what people read of a location: the path of a file, or of an archive with the member's name behind it.

    Example:
        >>> shown(member("train.tar", "cat/1.jpg", 512, 900))
        'train.tar/cat/1.jpg'
    """
    return path.partition("\0")[0]


def is_member(path: str) -> bool:
    """Tells whether a location is that of an archive's member."""
    return "\0" in path


def open_content(path: str) -> str | BinaryIO:
    """Returns what Pillow opens: the path of a file, or a file over the bytes of a member, of which few are in memory.

    Raises:
        OSError: The archive cannot be opened, or has changed since the location was made.
    """
    if (place := _place(path)) is None:
        return path
    _opened(place.archive, place.mtime_ns)
    return io.BufferedReader(_Member(place), min(max(place.size, 1), BUFFER))


def remembering_stat() -> Stat:
    """Makes an ``os.stat`` that looks each archive up once, whose members follow each other."""
    return functools.lru_cache(os.stat)


def size(path: str, stat: Stat = os.stat) -> int:
    """Returns the number of bytes; -1 if the file is gone, or the archive is or has become too short.

    Args:
        path: The location.
        stat: Looks up a file; for many locations ``remembering_stat``.
    """
    place = _place(path)
    try:
        length = stat(place.archive if place else path).st_size
    except OSError:
        return -1
    if place is None:
        return length
    return place.size if place.offset + place.size <= length else -1


def identity(path: str, stat: Stat = os.stat) -> tuple[int, ...] | None:
    """Returns device, inode and a member's offset, which all names of the same bytes share; None if no other name can.

    Args:
        path: The location.
        stat: As for ``size``.

    Raises:
        OSError: The file is gone.
    """
    place = _place(path)
    status = stat(place.archive if place else path)
    if place:
        return status.st_dev, status.st_ino, place.offset
    return (status.st_dev, status.st_ino) if status.st_nlink > 1 else None


def file_of(path: str) -> str:
    """Returns the path of the file itself, or of the archive that holds the member."""
    place = _place(path)
    return place.archive if place else path


def state(path: str, stat: Stat = os.stat) -> bytes:
    """Returns what changes with the content: the absolute path, the file's size and time of change, a member's range.

    Args:
        path: The location.
        stat: As for ``size``.
    """
    place = _place(path)
    file = place.archive if place else path
    text = os.fsencode(os.path.abspath(file))
    try:
        status = stat(file)
    except OSError:  # gone since the scan
        return text
    of_member = f"{place.offset}\0{place.size}\n" if place else ""
    return text + f"\0{status.st_size}\0{status.st_mtime_ns}\n{of_member}".encode()


def _place(path: str) -> _Place | None:
    text, _, numbers = path.partition("\0")
    if not numbers:
        return None
    length, offset, length_of_member, *checked = map(int, numbers.split(" "))
    return _Place(text[:length], offset, length_of_member, checked[0] if checked else None)


class _Archive:
    """An open archive, whose position only the holder of its lock may move."""

    def __init__(self, path: str, mtime_ns: int | None) -> None:
        self._file = io.FileIO(path)
        self._lock = threading.Lock()
        if mtime_ns not in (None, os.fstat(self._file.fileno()).st_mtime_ns):
            raise OSError(f"{path} has changed since it was indexed: start again")

    def read_into(self, buffer: memoryview, position: int) -> int:
        with self._lock:
            self._file.seek(position)
            return self._file.readinto(buffer)

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # not if it could not be opened
            self._file.close()


# An archive closes when it is neither among those used last nor being read. Forked processes share the position of an
# open file, so that a child opens its own.
_opened = functools.lru_cache(MAX_HANDLES)(_Archive)
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_opened.cache_clear)


class _Member(io.RawIOBase):
    """The bytes of a member as a file that is open for reading."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._place.size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # as io.BufferedReader calls it
        place = self._place
        wanted = min(len(buffer), max(0, place.size - self._position))
        if wanted == 0:
            return 0
        archive = _opened(place.archive, place.mtime_ns)
        count = archive.read_into(memoryview(buffer)[:wanted], place.offset + self._position)
        if count == 0:
            raise OSError(f"{place.archive} has become shorter since it was indexed")
        self._position += count
        return count
