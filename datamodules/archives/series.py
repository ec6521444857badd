"""The archives that make up one split: one, or a numbered series of shards."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.archives.compressed import SUFFIXES as COMPRESSED
from datamodules.archives.compressed import require_uncompressed
from datamodules.class_index import natural_key
from datamodules.files.errors import UserError, listed

SUFFIXES = (".tar", ".zip")


def is_archive(path: Path) -> bool:
    """Tells by its name whether a file is an archive, of the kinds that can be read or of those that must be converted.

    Example:
        >>> is_archive(Path("test.tar")), is_archive(Path("test.jpg"))
        (True, False)
    """
    return path.name.lower().endswith((*SUFFIXES, *COMPRESSED))


def archives_of(root: Path, split: str) -> list[list[Path]]:
    """Lists the archives of a split in ``root``, in natural order: one for all, and series, of each kind."""
    forms: dict[tuple[str, bool], list[Path]] = {}
    for path, match in _named(root, split):
        if (suffix := match[3].lower()) in SUFFIXES:
            forms.setdefault((suffix, bool(match[2])), []).append(path)
    return [forms[form] for form in sorted(forms)]


def refuse_compressed(root: Path, split: str) -> None:
    """Checks that a split of which nothing else was found does not lie in ``root`` compressed.

    Raises:
        UserError: It does; the message has the command that converts it.
    """
    for path, _ in _named(root, split):
        require_uncompressed(str(path))


def _named(root: Path, split: str) -> list[tuple[Path, re.Match[str]]]:
    """Lists the files in ``root`` that are named as archives of a split are, in natural order."""
    pattern = _pattern(re.escape(split))
    names = sorted(filter(pattern.fullmatch, os.listdir(root)), key=natural_key) if root.is_dir() else []
    named = [(root / name, match) for name in names if (match := pattern.fullmatch(name))]
    return [(path, match) for path, match in named if path.is_file() or not path.exists()]  # or a link to nothing


def _pattern(start: str) -> re.Pattern[str]:
    """Returns the pattern of an archive's name: its start, perhaps a number, and a suffix in any letter case."""
    suffixes = "|".join(map(re.escape, (*SUFFIXES, *COMPRESSED)))
    return re.compile(rf"({start})(?:-([0-9]+))?((?i:{suffixes}))", re.DOTALL)


def series_name(paths: Sequence[Path]) -> str:
    """Returns what messages call the archives of a split, which are in natural order.

    Example:
        >>> series_name([Path("train-000000.tar"), Path("train-000001.tar")])
        'train-{000000..000001}.tar'
    """
    if len(paths) == 1:
        return str(paths[0])
    matches = [_numbered(path) for path in (paths[0], paths[-1])]
    if not all(matches):
        return f"{paths[0]} and {len(paths) - 1} more"
    (start, first, suffix), (_, last, _) = (match.groups() for match in matches if match)
    return str(paths[0].parent / f"{start}-{{{first}..{last}}}{suffix}")


def _numbered(path: Path) -> re.Match[str] | None:
    match = _pattern(".*?").fullmatch(path.name)
    return match if match and match[2] else None


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
    matches = [match for path in paths if (match := _numbered(path))]
    numbers = [int(match[2]) for match in matches]
    if len(matches) < len(paths) or not numbers:
        return
    start, digits, suffix = matches[0].groups()
    expected = range(min(1, *numbers), max(numbers) + 1)  # from 0 or 1
    if missing := [f"{start}-{number:0{len(digits)}}{suffix}" for number in expected if number not in {*numbers}]:
        raise UserError(
            f"the shards {series_name(paths)} lack {listed(missing)}: add what is missing, or number them anew"
        )
    if len({*numbers}) < len(numbers):
        raise UserError(f"two of the shards {series_name(paths)} have one number: move away what does not belong to it")
