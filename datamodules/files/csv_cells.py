r"""File and class names as cells of a CSV file, and back: no name is lost, and no spreadsheet runs one.

Spreadsheets calculate a cell that begins with ``= + - @`` (full-width ones too), tab, carriage return or line feed,
quoted or not. Such a name gets a leading apostrophe, which marks it as text. A byte that is not UTF-8 becomes ``\xNN``,
so that the file can be read as UTF-8. Both can be undone without ambiguity; all other names stay as they are.

The list of characters is OWASP's: https://owasp.org/www-community/attacks/CSV_Injection
"""

import re
from collections.abc import Sequence

_RUNS = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_ESCAPE = re.compile(r"\\x(5c|[89a-f][0-9a-f])")


def to_cell(name: str) -> str:
    """Spells a name, as ``os.listdir`` gives it, for a CSV file.

    Example:
        >>> to_cell("cat"), to_cell("=1+1")
        ('cat', "'=1+1")
    """
    name = _ESCAPE.sub(r"\\x5cx\1", name)  # what looks like an escape already
    name = to_utf8(name)
    return f"'{name}" if _RUNS.match(name) else name


def to_utf8(name: str) -> str:
    r"""Replaces bytes of a name that are not UTF-8 by ``\xNN``."""
    return re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name)


def from_cell(cell: str) -> str:
    """Returns the name that ``to_cell`` spelled."""
    if cell.startswith("'") and _RUNS.match(cell):
        cell = cell[1:]
    return _ESCAPE.sub(lambda m: "\\" if m[1] == "5c" else chr(0xDC00 + int(m[1], 16)), cell)


def from_cells(cells: Sequence[str]) -> list[str]:
    """Undoes ``to_cell`` in a column, unless that makes two different cells one: then it was not written so."""
    meant = {cell: from_cell(cell) for cell in {*cells}}
    return [meant[cell] for cell in cells] if len({*meant.values()}) == len(meant) else [*cells]
