"""The rows of a labels file: which image, which label, which split, which group."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datamodules.files.csv_cells import from_cell
from datamodules.files.errors import UserError, listed
from datamodules.sources.label_records import DELIMITERS, read_records
from datamodules.split_names import split_of

IMAGE_COLUMNS = ("file_name", "image", "image_path", "image_name", "path", "id")
LABEL_COLUMNS = ("label", "class", "target")
SPLIT_COLUMNS = ("split",)


class LabelRow(NamedTuple):
    """A row of a labels file.

    Attributes:
        image: The image, as it is written.
        label: The label.
        split: ``train``, ``val`` or ``test``; empty if the file has no column of splits.
        group: What the image shows; empty if no column of groups was asked for.
        line: The line that the row begins in.
    """

    image: str
    label: str
    split: str
    group: str
    line: int


@dataclass(frozen=True)
class Columns:
    """The names of a labels file's columns, as they are typed; None for those found by convention.

    Attributes:
        image: The images' names or paths.
        label: Their labels.
        split: Their splits; None for no such column if there is none by convention.
        group: What they show; None for no such column.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None

    def choose(self, header: list[str], path: Path) -> list[str | None]:
        """Returns the names of the columns of images, labels, splits and groups.

        Raises:
            UserError: A typed name is not there, or none or several may be meant.
        """
        return [
            _column(header, path, "images", "image", self.image, IMAGE_COLUMNS),
            _column(header, path, "labels", "label", self.label, LABEL_COLUMNS),
            _column(header, path, "splits", "split", self.split, SPLIT_COLUMNS, needed=False),
            _column(header, path, "groups", "group", self.group, (), needed=False),
        ]


def read_label_table(path: Path, columns: Columns = Columns()) -> list[LabelRow]:
    """Reads a file of labels, in the order of its rows.

    Labels stay the text that they are, so that "01" is not "1", and blanks at their ends stay too, as in the names of
    class folders: a data set can be written as a file of labels and read back. In ``.csv`` and ``.tsv``, labels may be
    spelled as ``to_cell`` does.

    Raises:
        UserError: As ``read_records`` and ``Columns.choose`` tell; or a cell is empty, a split unknown, a label could
            not be a folder's name, or a cell holds several labels.
    """
    rows: list[LabelRow] = []
    empty: list[str] = []
    other_splits: dict[str, int] = {}
    names: list[str | None] = []

    def choose(header: list[str]) -> list[str | None]:
        names[:] = columns.choose(header, path)
        return names

    shared: dict[str, str] = {}  # one copy of each label, split and group
    for line, (image, label, split, group) in read_records(path, choose):
        faulty = [
            name for name, cell in zip(names, (image, label, split, group), strict=True) if name and not cell.strip()
        ]
        empty += [f"{line} ({' and '.join(faulty)})"] if faulty else []
        known = split_of(split) if split else ""
        if known is None:
            other_splits.setdefault(split, line)
        label, group = shared.setdefault(label, label), shared.setdefault(group, group)
        rows.append(LabelRow(image, label, known or "", group, line))
    if empty:
        written = " and ".join(name for name in names if name)
        raise UserError(
            f"{path} must have {written} in each row, but has an empty cell in line {listed(empty)}: fill it in or "
            "remove the row"
        )
    if other_splits:
        raise UserError(
            f"{path} must have train, val or test as {names[2]}, but has {_with_lines(other_splits)}: correct it, remove "
            "the rows, or name another column with --data.split_column"
        )
    if not rows:
        raise UserError(f"{path} has no rows below the names of its columns: add them")
    if path.suffix.lower() in DELIMITERS:
        rows = _unescaped(rows)
    _require_usable_labels(rows, path)
    return rows


def _column(
    header: list[str],
    path: Path,
    what: str,
    option: str,
    typed: str | None,
    known: Sequence[str],
    needed: bool = True,
) -> str | None:
    option = f"--data.{option}_column"
    if typed is not None:
        if header.count(typed) == 1:
            return typed
        fault = f"has more than one column {typed}" if typed in header else f"has no column {typed} ({option})"
        raise UserError(f"{path} {fault}, its columns are {listed(header, limit=20)}: name another one")
    found = [name for name in header if name.casefold() in known]
    if len(found) > 1:
        raise UserError(
            f"{path} has {len(found)} columns that may hold its {what}, {', '.join(found)}: name the one that does with "
            f"{option}, or rename a column if their names are the same"
        )
    if not found and needed:
        blanks = any(name != name.strip() and name.strip().casefold() in known for name in header)
        raise UserError(
            f"{path} has no column of {what} by a known name ({', '.join(known)}), only {listed(header, limit=20)}: "
            + ("remove the blanks after the separators" if blanks else f"name it with {option}")
        )
    return found[0] if found else None


def _unescaped(rows: list[LabelRow]) -> list[LabelRow]:
    """Undoes ``to_cell`` in all labels, unless that would make two of them one."""
    meant = {label: from_cell(label) for label in {row.label for row in rows}}
    if len(set(meant.values())) < len(meant) or all(label == name for label, name in meant.items()):
        return rows
    return [row._replace(label=meant[row.label]) for row in rows]


def _require_usable_labels(rows: Iterable[LabelRow], path: Path) -> None:
    labels: dict[str, int] = {}
    for row in rows:
        labels.setdefault(row.label, row.line)
    if unusable := {label: line for label, line in labels.items() if not _could_be_folder(label)}:
        raise UserError(
            f"a label must be a class's name that a folder could have, but {path} has {_with_lines(unusable)}: write it "
            "without a slash or a dot in front"
        )
    if several := _several_in_one(labels):
        raise UserError(
            f"{path} has several labels in one cell, {_with_lines({label: labels[label] for label in several})}, but "
            "this project is single-label: leave one in each row, or spell a class whose own name this is another way"
        )


def _could_be_folder(label: str) -> bool:
    """Tells whether every form of a data set can hold the class, such as shards with class folders inside."""
    try:
        label.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can hold
        return False
    return not label.startswith(".") and "/" not in label and "\0" not in label


def _several_in_one(labels: Iterable[str]) -> list[str]:
    """Returns labels that look like lists, or that separators divide into other labels.

    Names of classes have blanks, as in "hot dog" beside "dog" and "hot"; only if all that have blanks are made of other
    labels, blanks are separators.

    >>> _several_in_one(["cat", "dog", "cat|dog"]), _several_in_one(["hot", "dog", "hot dog", "ice cream"])
    (['cat|dog'], [])
    """
    known = set(labels)
    several = [label for label in labels if label[0] == "[" and label[-1] == "]"]
    for separator in ("|", ";", ",", None):  # None for blanks
        parts = {label: [part.strip() for part in label.split(separator)] for label in labels}
        joined = {label: found for label, found in parts.items() if len(found) > 1}
        torn = [label for label, found in joined.items() if known.issuperset(found)]
        several += torn if separator or len(torn) == len(joined) else []
    return several


def _with_lines(first_lines: dict[str, int]) -> str:
    return listed([f"{text!r} (line {line})" for text, line in first_lines.items()])
