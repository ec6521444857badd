"""Shards: which images go into which tar file, how one is written, and what a reader finds in it."""

import functools
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from datamodules.archives.index import make_index
from datamodules.archives.members import hidden_part, place_of
from datamodules.files.atomic_file import atomic_file
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import SHARD_MARK
from datamodules.images import location
from datamodules.images.find import SUFFIXES, ImageFile

CHUNK = 1 << 20  # bytes
HEADERS = {"comment": SHARD_MARK}  # of the whole file
MOST_SHARDS = 10**6  # of a split, which their names have room for


class PackedImage(NamedTuple):
    """An image in a shard: its name there, where it lies now, and its bytes."""

    name: str
    path: str
    size: int


@dataclass
class PlannedShard:
    """A tar file to be written.

    Attributes:
        name: The file's name.
        members: The images in it, in order.
        blocks: Bytes of the members with their headers.
    """

    name: str
    members: list[PackedImage]
    blocks: int = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return _size_with(self.blocks)


class Contents(NamedTuple):
    """What a shard holds: the SHA-256 of the file in hexadecimal, and each member's name and SHA-256."""

    sha256: str
    members: list[tuple[str, bytes]]


def plan_shards(split: str, images: Iterable[ImageFile], limit: int) -> list[PlannedShard]:
    """Divides images, in their order, among shards of at most ``limit`` bytes; a larger image gets its own.

    Raises:
        UserError: An image cannot be read, or a reader of shards would not find it under its name.
    """
    shards: list[PlannedShard] = []
    gone, unusable, names = [], [], set()
    for image in images:
        member = PackedImage(image.name, image.path, location.size(image.path))
        if member.size < 0 or not os.access(location.file_of(image.path), os.R_OK):
            gone.append(location.shown(image.path))
        if image.name in names or not _is_usable(image.name):
            unusable.append(location.shown(image.path))
        names.add(image.name)
        blocks = len(_header(member)) + _filled_up(member.size, tarfile.BLOCKSIZE)
        if not shards or _size_with(shards[-1].blocks + blocks) > limit:
            shards.append(PlannedShard(f"{split}-{len(shards):06}.tar", []))
        shards[-1].members.append(member)
        shards[-1].blocks += blocks
    if gone:
        raise UserError(
            f"{len(gone):,} images of {split} cannot be read, {listed(gone, 20)}: correct their permissions or remove "
            "them"
        )
    if unusable:
        raise UserError(
            f"{len(unusable):,} images of {split} have names that a shard cannot have, {listed(unusable, 20)}: each "
            f"must come once, end in {', '.join(SUFFIXES)}, have no backslash, begin with no drive such as C:, and "
            "have no part that is empty, hidden or called __MACOSX: rename them"
        )
    if len(shards) > MOST_SHARDS:
        raise UserError(f"{split} would have {len(shards):,} shards, more than {MOST_SHARDS:,}: raise --shard_mb")
    return shards


def pack_shard(shard: PlannedShard, path: Path, advance: Callable[[int], None]) -> str:
    """Writes a shard to ``path``, or keeps it if it is there already, and returns its SHA-256.

    It is read back before it gets its name.

    Args:
        shard: What it holds.
        path: The file, which may be an earlier shard.
        advance: Called with the number of bytes of images each time that some are read.

    Raises:
        UserError: An image cannot be read or has changed, the disk is full, or does not hold what was written.
    """
    if path.is_file() and path.stat().st_size == shard.size:
        wanted = _write(shard.members, None, advance)
        if _holds(path, wanted, advance):
            return wanted.sha256
    with atomic_file(path) as temporary:
        with open(temporary, "wb") as file:
            written = _write(shard.members, file, advance)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # so that it is the disk that is read
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if not _holds(temporary, written, advance):
            raise UserError(f"{path} does not hold what was written to it: check the disk, and repeat the command")
    return written.sha256


class _Hashed:
    """A file whose bytes are hashed on their way, or only hashed."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self._position = 0
        self.digest = hashlib.sha256()

    def tell(self) -> int:
        return self._position

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self._position += len(data)
        return self._file.write(data) if self._file else len(data)

    def read(self, size: int = -1) -> bytes:
        assert self._file is not None
        data = self._file.read(size)
        self.digest.update(data)
        self._position += len(data)
        return data


def _write(members: Iterable[PackedImage], file: BinaryIO | None, advance: Callable[[int], None]) -> Contents:
    """Writes a tar file that follows from names and contents alone; with no file it is only hashed."""
    hashed, digests = _Hashed(file), []
    # Names that are not UTF-8 are written as they are, whatever the encoding of this machine.
    options = {"format": tarfile.PAX_FORMAT, "encoding": "utf-8", "pax_headers": HEADERS}
    with tarfile.open(fileobj=hashed, mode="w", **options) as archive:  # type: ignore[call-overload]
        for member in members:
            content = _content(member)
            archive.addfile(_info(member), BytesIO(content))
            archive.members.clear()  # which take memory
            digests.append((member.name, hashlib.sha256(content).digest()))
            advance(member.size)
    return Contents(hashed.digest.hexdigest(), digests)


def _holds(path: Path, wanted: Contents, advance: Callable[[int], None]) -> bool:
    try:
        return _read_back(path, advance) == wanted
    except UserError:  # damaged
        return False


def _read_back(path: Path, advance: Callable[[int], None]) -> Contents:
    """Reads a shard as a run does: each image from where the index says that it is.

    Raises:
        UserError: It is no tar file, is damaged, or cannot be read.
    """
    index, digests = make_index(os.fspath(path), None), []
    with open(path, "rb") as file:
        hashed = _Hashed(file)
        for name, start, size in zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True):
            hashed.read(start - hashed.tell())
            digests.append((name, hashlib.sha256(hashed.read(size)).digest()))
            advance(size)
        while hashed.read(CHUNK):
            pass
    return Contents(hashed.digest.hexdigest(), digests)


def _content(member: PackedImage) -> bytes:
    try:
        source = location.open_content(member.path)
        with open(source, "rb") if isinstance(source, str) else source as file:
            content = file.read()
    except OSError as error:
        raise UserError(
            f"cannot read {location.shown(member.path)} ({error.strerror or error}): make it readable or remove it"
        ) from error
    if len(content) != member.size:
        raise UserError(
            f"{location.shown(member.path)} changed from {member.size:,} to {len(content):,} bytes while it was "
            "packed: repeat the command when nothing writes to the data"
        )
    return content


def _info(member: PackedImage) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.name)  # of 1970, with mode 0644, owned by nobody
    info.size = member.size
    return info


def _header(member: PackedImage) -> bytes:
    return _info(member).tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@functools.cache
def _size_without_members() -> int:
    return len(tarfile.TarInfo.create_pax_global_header(HEADERS)) + 2 * tarfile.BLOCKSIZE


def _size_with(blocks: int) -> int:
    """Returns the size of a file with members of so many bytes, which tarfile fills up to whole records."""
    return _filled_up(_size_without_members() + blocks, tarfile.RECORDSIZE)


def _filled_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _is_usable(name: str) -> bool:
    with suppress(UserError):
        return name.lower().endswith(SUFFIXES) and place_of(name, "") == name and not hidden_part(name)
    return False
