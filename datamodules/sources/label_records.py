"""Reads chosen columns of a ``.csv``, ``.tsv`` or ``.jsonl`` file strictly: whatever is not clear is an error."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.files.csv_tables import csv_rows
from datamodules.files.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}

Choose = Callable[[list[str]], Sequence[str | None]]  # of the header's names, those to read; None for an empty cell


def read_records(path: Path, choose: Choose) -> Iterator[tuple[int, list[str]]]:
    """Yields the line that a row begins in, and the chosen cells of the row; rows without any content do not count.

    In ``.jsonl``, each line is an object whose keys are the columns. Integers become their digits.

    Args:
        path: The file, in UTF-8.
        choose: Called with the names of all columns.

    Raises:
        UserError: The file cannot be read, is of another type or encoding, a quote is broken, a row has more or fewer
            cells than the header, or a JSON value is neither text nor an integer.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path} ends in {suffix or 'no suffix'}, but a file of labels must end in {', '.join(SUFFIXES)}: convert "
            "it, or rename it if it is one of these"
        )
    try:
        yield from _of_objects(path, choose) if suffix == ".jsonl" else _of_cells(path, DELIMITERS[suffix], choose)
    except OSError as error:
        raise UserError(f"cannot read the labels in {path} ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} must be in UTF-8, but {_first_bad_line(path)}: save it again as UTF-8, which spreadsheets offer "
            "among the kinds of CSV"
        ) from error


def _of_cells(path: Path, delimiter: str, choose: Choose) -> Iterator[tuple[int, list[str]]]:
    table = csv_rows(path, delimiter, strict=True)
    end = 0  # of the row before
    try:
        end, header = next(table, (0, []))
        _require_header(path, header, delimiter)
        places = [None if name is None else header.index(name) for name in choose(header)]
        for line, row in table:
            begin, end = end + 1, line
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise UserError(
                    f"line {begin} of {path} has {len(row)} cells, but the first line names {len(header)} columns: "
                    "complete the row, or put a cell that holds a separator into double quotes"
                )
            yield begin, ["" if place is None else row[place] for place in places]
    except csv.Error as error:
        raise UserError(
            f"the row of {path} that begins in line {end + 1} has a broken quote ({error}): close it, and double a "
            "quote that is part of a cell"
        ) from error


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


def _of_objects(path: Path, choose: Choose) -> Iterator[tuple[int, list[str]]]:
    header = list(dict.fromkeys(key for _, row in _objects(path) for key in row))
    if not header:
        raise UserError(f"{path} must hold a JSON object in each line, but it is empty: add the rows")
    names = choose(header)
    for line, row in _objects(path):
        if row:
            yield line, ["" if name is None else _text(row.get(name, ""), name, line, path) for name in names]


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text, parse_int=str, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as error:
                raise UserError(f"line {line} of {path} is not a JSON object ({error}): correct it") from error
            if not isinstance(row, dict):
                raise UserError(f"line {line} of {path} must be a JSON object, got {_shown(row)}: correct it")
            yield line, row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key comes twice")
    return row


def _text(value: Any, name: str, line: int, path: Path) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        raise UserError(
            f"line {line} of {path} has a list as {name}, {_shown(value)}, but this project is single-label: give each "
            "image one label, as text"
        )
    raise UserError(f"line {line} of {path} must have text or an integer as {name}, got {_shown(value)}: correct it")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
