"""The rows of a labels file: which image, which label, which split, which group."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from datamodules.archives.label_members import COLUMNS as LABEL_COLUMNS
from datamodules.files.csv_cells import from_cells
from datamodules.files.errors import UserError, listed
from datamodules.sources.label_names import require_usable_labels
from datamodules.sources.label_records import DELIMITERS, read_header, read_records
from datamodules.split_names import split_of

IMAGE_COLUMNS = ("file_name", "image", "image_path", "image_name", "path", "id")
SPLIT_COLUMNS = ("split",)
NO_COLUMN = ""


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
    """The names of a labels file's columns, as they are typed; None for one found by convention, if there is one.

    ``NO_COLUMN`` stands for none, whatever the conventions.

    Attributes:
        image: The images' names or paths.
        label: Their labels.
        split: Their splits.
        group: What they show; None for none.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None

    def choose(self, header: list[str], path: Path) -> list[str | None]:
        """Returns the names of the columns of images, labels, splits and groups; None where there is no such column.

        Raises:
            UserError: A typed name is not there, or none or several may be meant.
        """
        return [
            _column(header, path, "images", "image", self.image, IMAGE_COLUMNS),
            _column(header, path, "labels", "label", self.label, LABEL_COLUMNS),
            _column(header, path, "splits", "split", self.split, SPLIT_COLUMNS, needed=False),
            self.group if self.group and header.count(self.group) == 1 else None,
        ]


BY_CONVENTION = Columns()


def read_label_table(path: Path, columns: Columns = BY_CONVENTION, split: str = "train") -> list[LabelRow]:
    """Reads a file of labels, in the order of its rows.

    Labels stay the text that they are, so that "01" is not "1", and blanks at their ends stay too, as in the names of
    class folders: a data set can be written as a file of labels and read back. In ``.csv`` and ``.tsv``, labels may be
    spelled as ``to_cell`` does. Only images that train need a group.

    Args:
        path: The file.
        columns: The columns that are named.
        split: The split of all rows, if no column says it.

    Raises:
        UserError: As ``read_records`` and ``Columns.choose`` tell; or a cell is empty, a split unknown, a label could
            not be a folder's name, or a cell holds several labels.
    """
    header = read_header(path)
    names = columns.choose(header, path)
    rows = _usable_rows(read_records(path, names), names, path)
    if columns.group and not names[3] and "train" in {row.split or split for row in rows}:
        raise _no_column(header, path, columns.group, "--data.group_column")
    if path.suffix.lower() in DELIMITERS:
        labels = from_cells([row.label for row in rows])
        rows = [row._replace(label=label) for row, label in zip(rows, labels, strict=True)]
    lines: dict[str, int] = {}
    for row in rows:
        lines.setdefault(row.label, row.line)
    require_usable_labels(lines, str(path), lambda label: f"{label!r} (line {lines[label]})")
    return rows


def _usable_rows(records: Iterable[tuple[int, list[str]]], names: list[str | None], path: Path) -> list[LabelRow]:
    """Checks that no cell of the columns ``names`` is empty, and no split unknown."""
    rows: list[LabelRow] = []
    empty: list[str] = []
    unknown: dict[str, int] = {}
    split_called: dict[str, str | None] = {"": ""}
    shared: dict[str, str] = {}  # one copy of each label and group
    for line, cells in records:
        if faulty := [name for name, cell in zip(names, cells, strict=True) if name and not cell.strip()]:
            empty.append(f"{line} ({' and '.join(faulty)})")
        image, label, called, group = cells
        if called not in split_called:
            split_called[called] = split_of(called)
        if (split := split_called[called]) is None:
            unknown.setdefault(called, line)
        label, group = shared.setdefault(label, label), shared.setdefault(group, group)
        rows.append(LabelRow(image, label, split or "", group, line))
    if empty:
        wanted = " and ".join(name for name in names if name)
        raise UserError(
            f"{path} must have {wanted} in each row, but has an empty cell in line {listed(empty)}: fill it in or "
            "remove the row"
        )
    if unknown:
        raise UserError(
            f"{path} must have train, val or test as {names[2]}, but has {_with_lines(unknown)}: correct it, remove "
            "the rows, or name another column with --data.split_column"
        )
    if not rows:
        raise UserError(f"{path} has no rows below the names of its columns: add them")
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
    if typed == NO_COLUMN and not needed:
        return None
    if typed is not None:
        if header.count(typed) == 1:
            return typed
        raise _no_column(header, path, typed, option)
    found = [name for name in header if name.casefold() in known]
    if len(found) > 1:
        raise UserError(
            f"{path} has {len(found)} columns that may hold its {what}, {', '.join(found)}: name the one that does "
            f"with {option}, or rename a column if their names are the same"
        )
    if not found and needed:
        blanks = any(name != name.strip() and name.strip().casefold() in known for name in header)
        raise UserError(
            f"{path} has no column of {what} by a known name ({', '.join(known)}), only {listed(header, limit=20)}: "
            + ("remove the blanks after the separators" if blanks else f"name it with {option}")
        )
    return found[0] if found else None


def _no_column(header: list[str], path: Path, typed: str, option: str) -> UserError:
    fault = f"has more than one column {typed}" if typed in header else f"has no column {typed}"
    return UserError(f"{path} {fault} ({option}), its columns are {listed(header, limit=20)}: name one of them")


def _with_lines(first_lines: dict[str, int]) -> str:
    return listed([f"{text!r} (line {line})" for text, line in first_lines.items()])
