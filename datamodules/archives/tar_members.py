"""Lists the members of a tar file, and refuses one that is damaged."""

import io
import os
import tarfile
from collections.abc import Iterator
from typing import Any

from datamodules.archives.members import Kind, Member, as_sentences, may_be_label
from datamodules.files.errors import UserError
from datamodules.images.find import SUFFIXES

MAX_HEADER = 1 << 20  # bytes; names are far shorter
_KINDS = {tarfile.LNKTYPE: Kind.HARD_LINK, tarfile.SYMTYPE: Kind.SYMBOLIC_LINK, tarfile.DIRTYPE: Kind.FOLDER}


def tar_members(path: str) -> Iterator[Member]:
    """Yields the members in their order.

    Raises:
        UserError: The file is not a tar file, is damaged or cut, more data come after its end mark, or an image in it
            is sparse.
    """
    with as_sentences(path, "tar file"), _Headers(path) as file:
        tar: Any = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")  # names as a file system's
        position = -1
        while (info := tar.next()) is not None:
            tar.members.clear()  # which would keep every member
            if info.size < 0 or tar.offset <= position:
                raise tarfile.ReadError("a member of negative size")
            position = tar.offset
            yield _member(info, file, path)
        _require_end(file, tar.offset, path)


class _Headers(io.BufferedReader):
    """A file that refuses to read headers of a size that only a damaged or hostile file asks for."""

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path))
        self.length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _member(info: tarfile.TarInfo, file: _Headers, path: str) -> Member:
    kind = Kind.FILE if info.isreg() else _KINDS.get(info.type, Kind.OTHER)
    if kind is Kind.FILE and not info.issparse() and info.offset_data + info.size > file.length:
        raise UserError(f"{path} is cut off within {info.name!r}: copy or pack it again")
    if kind is Kind.FILE and info.issparse() and info.name.lower().endswith(SUFFIXES):
        raise UserError(f"{info.name!r} in {path} is sparse, so that it has no place to be read from: pack it again")
    text = None
    if kind is Kind.FILE and may_be_label(info.name, info.size):
        file.seek(info.offset_data)
        text = file.read(info.size)
    return Member(info.name, kind, info.offset_data, info.size, info.linkname, text)


def _require_end(file: _Headers, position: int, path: str) -> None:
    """Checks that what ended the listing is the end mark, a block of zeros, and that only zeros follow."""
    file.seek(position)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise UserError(f"{path} is cut off, as it has no end mark: copy or pack it again")
    if any(block):
        raise UserError(f"{path} is damaged {position:,} bytes after its beginning: copy or pack it again")
    while block := file.read(MAX_HEADER):
        if any(block):
            raise UserError(
                f"{path} goes on behind its end mark, as if tar files had been joined: unpack it with tar "
                "--ignore-zeros and pack it again"
            )
