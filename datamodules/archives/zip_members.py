"""Lists the members of a zip file whose images are stored, and refuses one that is damaged."""

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from datamodules.archives.members import MAX_LABEL, Kind, Member, as_sentences, hidden_part, may_be_label
from datamodules.files.errors import UserError, listed
from datamodules.images.find import SUFFIXES

_SIGNATURE = b"PK\3\4"  # of a local header
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of which the lengths of the name and of the extra field follow
_ENCRYPTED, _UTF8 = 0x1, 0x800
_UNIX = 3


def zip_members(path: str) -> Iterator[Member]:
    """Yields the members in the order of their bytes.

    Raises:
        UserError: The file is not a zip file, is damaged or cut, members overlap, or images are compressed or
            encrypted.
    """
    with as_sentences(path, "zip file"), zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        infos = sorted(archive.infolist(), key=attrgetter("header_offset"))
        if packed := [info.filename for info in infos if _is_packed_image(info)]:
            folder = Path(path).with_suffix("")
            raise UserError(
                f"{path} holds images that are compressed or encrypted and cannot be read in place, "
                f"{listed(packed)}: run unzip {path} -d {folder}, or pack it again with zip -0"
            )
        end = 0
        for info in infos:
            start, end = _range(file, info, end, archive.start_dir)
            yield _member(archive, info, start)


def _is_packed_image(info: zipfile.ZipInfo) -> bool:
    packed = info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED
    return bool(packed) and info.filename.lower().endswith(SUFFIXES) and hidden_part(info.filename) is None


def _range(file: BinaryIO, info: zipfile.ZipInfo, previous_end: int, directory: int) -> tuple[int, int]:
    """Returns where a member's bytes begin and end.

    Raises:
        zipfile.BadZipFile: They overlap with another's, or are not within the file.
    """
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    signature, length_of_name, length_of_extra = _LOCAL_HEADER.unpack(header)
    if signature != _SIGNATURE:
        raise zipfile.BadZipFile(f"no header of {info.filename}")
    start = info.header_offset + _LOCAL_HEADER.size + length_of_name + length_of_extra
    end = start + info.compress_size
    if info.header_offset < previous_end or end > directory:
        raise zipfile.BadZipFile(f"{info.filename} overlaps with another member")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} has two sizes")
    return start, end


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, start: int) -> Member:
    name = _name(info)
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    if info.orig_filename.endswith("/"):
        return Member(name, Kind.FOLDER)
    if stat.S_ISLNK(mode):
        return Member(name, Kind.SYMBOLIC_LINK, target=os.fsdecode(_text(archive, info)))
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return Member(name, Kind.OTHER)
    text = _text(archive, info) if may_be_label(name, info.file_size) else None
    return Member(name, Kind.FILE, start, info.file_size, text=text)


def _name(info: zipfile.ZipInfo) -> str:
    """Returns the name as unzip does: where no mark says UTF-8, Unix has bytes of any kind, and DOS its code page."""
    if info.flag_bits & _UTF8 or info.create_system != _UNIX:
        return info.orig_filename
    return info.orig_filename.encode("cp437").decode("utf-8", "surrogateescape")


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(MAX_LABEL)
