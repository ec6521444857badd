"""What the small members beside an image say about its class, as WebDataset has it: ``key.cls`` or ``key.json``."""

from datamodules.class_index import could_be_folder
from datamodules.files.errors import listed
from datamodules.files.json_objects import read_object, text_of

COLUMNS = ("label", "class", "target")


def read_label(name: str, content: bytes, column: str | None) -> str:
    """Returns the label.

    Args:
        name: Name of the member, which ends in ``.cls`` or ``.json``.
        content: Its bytes.
        column: The field of JSON that holds the label; by default the only one of ``COLUMNS`` in any letter case.

    Raises:
        ValueError: There is none, in words to be read after the member's name.

    Example:
        >>> read_label("1.json", b'{"Label": 7, "width": 640}', None)
        '7'
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("is not in UTF-8") from error
    label = text.strip() if name.lower().endswith(".cls") else _field(text, column)
    if not label.strip():
        raise ValueError("is empty")
    if not could_be_folder(label):
        raise ValueError(f"has the label {label!r}, which is no name that a class's folder could have")
    return label


def _field(text: str, column: str | None) -> str:
    row = read_object(text)
    fields = [name for name in row if (name == column if column else name.casefold() in COLUMNS)]
    if not fields:
        raise ValueError(f"has no field {column or ', '.join(COLUMNS)}")
    if len(fields) > 1:
        raise ValueError(f"has several fields that may be the label, {listed(fields)}: choose --data.label_column")
    return text_of(row[fields[0]], fields[0])
