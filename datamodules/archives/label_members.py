"""What the small members beside an image say about its class, as WebDataset has it: ``key.cls`` or ``key.json``."""

import json
from typing import Any

from datamodules.class_index import could_be_folder
from datamodules.files.errors import listed

COLUMNS = ("label", "class", "target")
LABEL, FAULT = "=", "!"  # what a text begins with


def read_label(name: str, content: bytes, column: str | None) -> str:
    """Returns the label behind ``LABEL``, or what is wrong behind ``FAULT``, as it matters only if labels are needed.

    A number in JSON is taken as it is written.

    Args:
        name: Name of the member, which ends in ``.cls`` or ``.json``.
        content: Its bytes.
        column: The field of JSON that holds the label; by default the only one of ``COLUMNS`` that is there.

    Example:
        >>> read_label("1.json", b'{"label": 1.50, "width": 640}', None)
        '=1.50'
    """
    try:
        text = content.decode("utf-8-sig")
        label = text.strip() if name.lower().endswith(".cls") else _field(json.loads(text, **_AS_WRITTEN), column)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _NoLabelError) else "cannot be read"
        return f"{FAULT}{reason}"
    if not label.strip():
        return f"{FAULT}is empty"
    if not could_be_folder(label):
        return f"{FAULT}has the label {label!r}, which is no name that a class's folder could have"
    return f"{LABEL}{label}"


class _NoLabelError(ValueError):
    """What is wrong, to be read after the member's name."""


_AS_WRITTEN: dict[str, Any] = {"parse_int": str, "parse_float": str}


def _field(content: Any, column: str | None) -> str:
    if not isinstance(content, dict):
        raise _NoLabelError("holds no object")
    fields = [name for name in ([column] if column else COLUMNS) if name in content]
    if not fields:
        raise _NoLabelError(f"has no field {column or ', '.join(COLUMNS)}")
    if len(fields) > 1:
        raise _NoLabelError(f"has several fields that may be the label, {listed(fields)}: choose --data.label_column")
    label = content[fields[0]]
    if isinstance(label, list):
        raise _NoLabelError("has several labels, but an image has one class here")
    if not isinstance(label, str):
        raise _NoLabelError(f"has {json.dumps(label)[:40]} for its {fields[0]}, which is neither text nor a number")
    return label
