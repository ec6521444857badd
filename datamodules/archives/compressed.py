"""Compressed archives, which have no random access."""

from contextlib import suppress
from pathlib import Path

from datamodules.files.errors import UserError

# Program that unpacks, by the suffixes of compressed tar files and by what such files begin with.
_BY_SUFFIX = {
    **dict.fromkeys((".tar.gz", ".tgz"), "gunzip -k"),
    **dict.fromkeys((".tar.bz2", ".tbz2", ".tbz"), "bunzip2 -k"),
    **dict.fromkeys((".tar.xz", ".txz"), "unxz -k"),
    **dict.fromkeys((".tar.zst", ".tzst"), "unzstd"),
}
_BY_CONTENT = {
    b"\x1f\x8b": (".gz", "gunzip -k"),
    b"BZh": (".bz2", "bunzip2 -k"),
    b"\xfd7zXZ\0": (".xz", "unxz -k"),
    b"\x28\xb5\x2f\xfd": (".zst", "unzstd"),
}
SUFFIXES = tuple(_BY_SUFFIX)


def require_uncompressed(path: str) -> None:
    """Checks that an archive is not compressed as a whole, by its name and its first bytes.

    Raises:
        UserError: It is; the message has the command that converts it.
    """
    what = f"{path} is compressed, so that its images cannot be read in place"
    for suffix, program in _BY_SUFFIX.items():
        if path.lower().endswith(suffix):
            raise UserError(f"{what}: run {program} {path}")
    head = b""
    with suppress(OSError), open(path, "rb") as file:  # if it cannot be read, who lists it says so
        head = file.read(6)
    for magic, (suffix, program) in _BY_CONTENT.items():
        if head.startswith(magic):
            renamed = Path(path).name + suffix
            raise UserError(f"{what}: rename it to {renamed} and run {program} {renamed}")
