r"""File and class names as cells of a CSV file, and back: no name is lost, and no spreadsheet runs one.

Spreadsheets calculate a cell that begins with ``= + - @`` (full-width ones too), tab, carriage return or line feed,
quoted or not. Such a name gets a
leading apostrophe, by which they take it for text. A byte that is no UTF-8 becomes ``\xNN``, so that the file can be
read as UTF-8. Both can be undone without doubt; all other names stay as they are.

The list of characters is OWASP's: https://owasp.org/www-community/attacks/CSV_Injection
"""

import re

_RUNS = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_ESCAPE = re.compile(r"\\x(5c|[89a-f][0-9a-f])")


def to_cell(name: str) -> str:
    """Spells a name, as ``os.listdir`` gives it, for a CSV file."""
    name = _ESCAPE.sub(r"\\x5cx\1", name)  # what looks like an escape already
    name = to_utf8(name)
    return f"'{name}" if _RUNS.match(name) else name


def to_utf8(name: str) -> str:
    r"""The name as it is, but for bytes that are no UTF-8, which become ``\xNN``."""
    return re.sub("[\udc80-\udcff]", lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name)


def from_cell(cell: str) -> str:
    """The name that ``to_cell`` spelled."""
    if cell.startswith("'") and _RUNS.match(cell):
        cell = cell[1:]
    return _ESCAPE.sub(lambda m: "\\" if m[1] == "5c" else chr(0xDC00 + int(m[1], 16)), cell)
