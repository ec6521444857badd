"""What tar and zip files have in common: members with a name, a range of bytes, or a link to another member."""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import NamedTuple

from datamodules.files.errors import UserError

LABEL_SUFFIXES = (".cls", ".json")
MAX_LABEL = 1_000_000  # bytes; what is larger is no label
_UNSAFE = re.compile(r"/|[A-Za-z]:|.*[\\\0]|(.*/)?\.\.(/|$)", re.DOTALL)


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    FOLDER = "folder"
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"
    OTHER = "other"  # a device, a pipe


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: Its name, as the archive spells it.
        kind: What it is.
        offset: Where the bytes of a file begin in the archive.
        size: How many there are.
        target: Name of a link's target, as the archive spells it.
        text: The bytes of a file that may be a label.
    """

    name: str
    kind: Kind
    offset: int = 0
    size: int = 0
    target: str = ""
    text: bytes | None = None


def place_of(name: str, archive: str) -> str:
    """Returns a member's place in its archive, without the ``./`` that tar likes to begin with.

    Raises:
        UserError: To unpack it would write to another place, on some system.

    Example:
        >>> place_of("./cat//1.jpg", "train.tar")
        'cat/1.jpg'
    """
    if _UNSAFE.match(name):
        raise UserError(
            f"{archive} has a member {name!r}, whose name leads out of the archive on some systems: pack it again with "
            "relative names"
        )
    if name.startswith(".") or "//" in name or "/." in name or name.endswith("/"):
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return name


def target_of(place: str, member: Member) -> str:
    """Returns the place that a link leads to; a symbolic link starts from its own folder."""
    folder = posixpath.dirname(place) if member.kind is Kind.SYMBOLIC_LINK else ""
    return posixpath.normpath(posixpath.join(folder, member.target))


def hidden_part(place: str) -> str | None:
    """Returns the place up to its first part that is hidden, or that macOS adds to archives; None if there is none.

    Example:
        >>> hidden_part("cat/.thumbnails/1.jpg")
        'cat/.thumbnails'
    """
    if "/." not in place and place[:1] != "." and "__MACOSX" not in place:
        return None
    parts = place.split("/")
    hidden = (i for i, part in enumerate(parts) if part.startswith(".") or part == "__MACOSX")
    return next(("/".join(parts[: i + 1]) for i in hidden), None)


def may_be_label(name: str, size: int) -> bool:
    """Tells whether the bytes of a file are kept as ``Member.text``."""
    return size <= MAX_LABEL and name.lower().endswith(LABEL_SUFFIXES)


@contextmanager
def as_sentences(path: str, kind: str) -> Iterator[None]:
    """Turns whatever a library raises of a damaged archive into a ``UserError``; ``kind`` is such as "tar file"."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): make it readable or copy it again") from error
    except Exception as error:  # tarfile and zipfile raise ValueError, struct.error, RecursionError and more
        reason = f"{type(error).__name__}: {error}".strip(": ")
        raise UserError(
            f"{path} is not a {kind}, or is damaged or cut off ({reason}): copy or pack it again"
        ) from error
