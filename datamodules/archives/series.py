"""The archives that make up one split: one, or a numbered series of shards."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.archives.compressed import SUFFIXES as COMPRESSED
from datamodules.class_index import natural_key
from datamodules.files.errors import UserError, listed

SUFFIXES = (".tar", ".zip")
_NUMBERED = re.compile(r"(.*-)([0-9]+)(\.[^.]+)", re.DOTALL)


def is_archive(path: Path) -> bool:
    """Tells by its name whether a file is an archive, of the kinds that can be read or of those that must be converted.

    Example:
        >>> is_archive(Path("test.tar")), is_archive(Path("test.jpg"))
        (True, False)
    """
    return path.name.lower().endswith((*SUFFIXES, *COMPRESSED))


def archives_of(root: Path, split: str) -> list[list[Path]]:
    """Lists the archives of a split in ``root``, in natural order: one for all, and series, of each kind."""
    names = [name for name in os.listdir(root) if name.lower().endswith(SUFFIXES)] if root.is_dir() else []
    forms: list[list[Path]] = []
    for suffix in SUFFIXES:
        for pattern in (re.escape(split + suffix), rf"{re.escape(split)}-[0-9]+{re.escape(suffix)}"):
            found = sorted((name for name in names if re.fullmatch(pattern, name)), key=natural_key)
            forms += [[root / name for name in found]] if found else []
    return forms


def series_name(paths: Sequence[Path]) -> str:
    """Returns what messages call the archives of a split, which are in natural order.

    Example:
        >>> series_name([Path("train-000000.tar"), Path("train-000001.tar")])
        'train-{000000..000001}.tar'
    """
    if len(paths) == 1:
        return str(paths[0])
    matches = [_NUMBERED.fullmatch(path.name) for path in (paths[0], paths[-1])]
    if not all(matches):
        return f"{paths[0]} and {len(paths) - 1} more"
    (start, first, suffix), (_, last, _) = (match.groups() for match in matches if match)
    return str(paths[0].parent / f"{start}{{{first}..{last}}}{suffix}")


def require_series(paths: Sequence[Path]) -> None:
    """Checks that several archives are of one kind, and that no number is missing from a series or comes twice.

    Raises:
        UserError: They are not.
    """
    suffixes = {path.suffix.lower() for path in paths}
    if len(suffixes) > 1:
        raise UserError(
            f"the archives of a split must be of one kind, but {series_name(paths)} are {listed(sorted(suffixes))}: "
            "move away what does not belong to it"
        )
    matches = [match for path in paths if (match := _NUMBERED.fullmatch(path.name))]
    numbers = [int(match[2]) for match in matches]
    if len(matches) < len(paths) or not numbers:
        return
    start, digits, suffix = matches[0].groups()
    expected = range(min(1, *numbers), max(numbers) + 1)  # from 0 or 1
    if missing := [f"{start}{number:0{len(digits)}}{suffix}" for number in expected if number not in {*numbers}]:
        raise UserError(
            f"the shards {series_name(paths)} lack {listed(missing)}: add what is missing, or number them anew"
        )
    if len({*numbers}) < len(numbers):
        raise UserError(f"two of the shards {series_name(paths)} have one number: move away what does not belong to it")
