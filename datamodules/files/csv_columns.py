"""Reads named columns of a CSV file that a person, a spreadsheet or another program wrote."""

import csv
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from datamodules.files.errors import UserError, listed


def read_columns(path: Path, columns: Sequence[str | Collection[str]], *, what: str, way_out: str) -> list[list[str]]:
    """Reads columns by their names; other columns, and rows without any content, do not count.

    A byte order mark and either kind of line ending are understood; spreadsheets add empty rows at the end.

    Args:
        path: The file, in UTF-8.
        columns: The columns' names; where several are given for one, the first that is there is read.
        what: What the file is called in messages.
        way_out: What to do instead of correcting the file, as messages say it.

    Returns:
        The cells of each row, in the order of ``columns``.

    Raises:
        UserError: The file cannot be read, lacks a column or has it twice, or has an empty cell in one.
    """
    rows: list[list[str]] = []
    empty: list[str] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            names = [_present(column, header, path, way_out) for column in columns]
            places = [header.index(name) for name in names]
            for row in reader:
                cells = [row[place] if len(row) > place else "" for place in places]
                if all(cell.strip() for cell in cells):
                    rows.append(cells)
                elif any(cell.strip() for cell in row):
                    faulty = next(name for name, cell in zip(names, cells, strict=True) if not cell.strip())
                    empty.append(f"{reader.line_num}" if len(names) == 1 else f"{reader.line_num} ({faulty})")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {what} {path} ({error}): {way_out}") from error
    if empty:
        raise UserError(
            f"{path} must have {_with_article(' and '.join(names))} in each row, but has none in line {listed(empty)}: "
            "fill it in or remove the row"
        )
    return rows


def _present(column: str | Collection[str], header: list[str], path: Path, way_out: str) -> str:
    wanted = [column] if isinstance(column, str) else list(column)
    for name in wanted:
        if header.count(name) > 1:
            raise UserError(f"{path} has more than one column {name}: remove or rename all but one, or {way_out}")
        if name in header:
            return name
    separated = re.split(r"[;\t]", "".join(header[:1]))
    advice = "separate columns by commas" if any(name in separated for name in wanted) else "rename a column"
    raise UserError(
        f"{path} has no column {' or '.join(wanted)}, only {', '.join(header or ['an empty line'])}: {advice} or "
        f"{way_out}"
    )


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
