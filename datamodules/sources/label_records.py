"""Reads chosen columns of a ``.csv``, ``.tsv`` or ``.jsonl`` file strictly: whatever is not clear is an error."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.files.csv_tables import csv_rows
from datamodules.files.errors import UserError
from datamodules.files.json_objects import read_object, text_of

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}

Names = Sequence[str | None]
Record = tuple[int, list[str]]


def read_header(path: Path) -> list[str]:
    """Returns the names of all columns; in ``.jsonl``, each line is an object whose keys are the columns.

    Raises:
        UserError: The file cannot be read, is of another type or encoding, or names no columns.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path} ends in {suffix or 'no suffix'}, but a file of labels must end in {', '.join(SUFFIXES)}: convert "
            "it, or rename it if it is one of these"
        )
    with _as_sentences(path):
        if suffix == ".jsonl":
            header = list(dict.fromkeys(key for _, row in _objects(path) for key in row))
            if not header:
                raise UserError(f"{path} must hold a JSON object in each line, but it is empty: add the rows")
        else:
            _, header = next(_table(path), (1, []))
            _require_header(path, header, DELIMITERS[suffix])
        return header


def read_records(path: Path, names: Names) -> Iterator[Record]:
    """Yields the line that a row begins in, and its cells in chosen columns; rows without any content do not count.

    Args:
        path: The file, in UTF-8.
        names: Names from the header; None for an empty cell.

    Raises:
        UserError: The file cannot be read, is of another encoding, a quote is broken, a row has more or fewer cells
            than the header, or a JSON value is neither text nor an integer.
    """
    with _as_sentences(path):
        yield from _rows_of_objects(path, names) if path.suffix.lower() == ".jsonl" else _rows_of_cells(path, names)


@contextmanager
def _as_sentences(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read the labels in {path} ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} must be in UTF-8, but {_first_bad_line(path)}: save it again as UTF-8, which spreadsheets offer "
            "among the kinds of CSV"
        ) from error


def _table(path: Path) -> Iterator[Record]:
    """Yields all cells of each row, the header's first, with the line that it begins in."""
    end = 0  # of the row before
    try:
        for line, row in csv_rows(path, DELIMITERS[path.suffix.lower()], strict=True):
            begin, end = end + 1, line
            yield begin, row
    except csv.Error as error:
        raise UserError(
            f"the row of {path} that begins in line {end + 1} has a broken quote ({error}): close it, and double a "
            "quote that is part of a cell"
        ) from error


def _rows_of_cells(path: Path, names: Names) -> Iterator[Record]:
    table = _table(path)
    _, header = next(table)
    places = [None if name is None else header.index(name) for name in names]
    for begin, row in table:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise UserError(
                f"line {begin} of {path} has {len(row)} cells, but the first line names {len(header)} columns: "
                "complete the row, or put a cell that holds a separator into double quotes"
            )
        yield begin, ["" if place is None else row[place] for place in places]


def _require_header(path: Path, header: list[str], delimiter: str) -> None:
    if not any(header):
        raise UserError(f"{path} must name its columns in the first line, which is empty: add the names")
    if "\0" in "".join(header):
        raise UserError(f"{path} must be in UTF-8, but it looks like UTF-16: save it again as UTF-8")
    if len(header) == 1:
        for other, name in SEPARATORS.items():
            if other in header[0] and other != delimiter:
                right = (
                    "tabs, or call it .csv" if delimiter == "\t" else "commas" + ", or call it .tsv" * (other == "\t")
                )
                raise UserError(f"{path} separates its columns by {name}: separate them by {right}")


def _rows_of_objects(path: Path, names: Names) -> Iterator[Record]:
    for line, row in _objects(path):
        try:
            if row:
                yield line, ["" if name is None else text_of(row.get(name, ""), name) for name in names]
        except ValueError as error:
            raise UserError(f"line {line} of {path} {error}: correct it") from error


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            try:
                if text.strip():
                    yield line, read_object(text)
            except ValueError as error:
                raise UserError(f"line {line} of {path} {error}: correct it") from error


def _first_bad_line(path: Path) -> str:
    with open(path, "rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "it is in UTF-16"
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"line {number} is not"
    return "it is not"
