"""CSV files: named columns of one that a person, a spreadsheet or another program wrote, and writing one."""

import csv
import io
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from datamodules.files.errors import UserError, listed


def csv_rows(path: Path, delimiter: str = ",", *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yields each row of a file in UTF-8 with the number of the line that it ends in; an empty line is an empty row.

    A byte order mark, either kind of line ending and quoted line breaks are understood.

    Args:
        path: The file.
        delimiter: What separates cells.
        strict: Whether a quote that is not closed, or closed in the middle of a cell, is an error.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is not UTF-8.
        csv.Error: A quote is broken, or a cell has more than 131,072 characters, mostly for lack of a quote.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=strict)
        for row in reader:
            yield reader.line_num, row


def read_columns(path: Path, columns: Sequence[str | Collection[str]], *, what: str, way_out: str) -> list[list[str]]:
    """Reads columns by their names; other columns, and rows without any content, do not count.

    Spreadsheets add empty rows at the end.

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
        table = csv_rows(path)
        _, header = next(table, (0, []))
        names = [_present(column, header, path, way_out) for column in columns]
        places = [header.index(name) for name in names]
        for line, row in table:
            cells = [row[place] if len(row) > place else "" for place in places]
            if all(cell.strip() for cell in cells):
                rows.append(cells)
            elif any(cell.strip() for cell in row):
                faulty = next(name for name, cell in zip(names, cells, strict=True) if not cell.strip())
                empty.append(f"{line}" if len(names) == 1 else f"{line} ({faulty})")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {what} {path} ({error}): {way_out}") from error
    if empty:
        raise UserError(
            f"{path} must have {_with_article(' and '.join(names))} in each row, but has none in line {listed(empty)}: "
            "fill it in or remove the row"
        )
    return rows


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Writes a CSV file, in UTF-8 with line feeds."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\r\n")  # with "\n", Python 3.11 leaves a carriage return unquoted
    quoting_writer = csv.writer(line, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    with open(path, "w", newline="", encoding="utf-8") as file:
        for cells in itertools.chain([header], rows):
            line.seek(0)
            line.truncate()
            # Some spreadsheets split unquoted cells at semicolons, and would evaluate the part behind one.
            cells = list(cells)
            (quoting_writer if any(";" in cell or "\t" in cell for cell in cells) else writer).writerow(cells)
            file.write(line.getvalue().removesuffix("\r\n") + "\n")


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
