"""JSON objects that people label images with, read strictly: whatever is not clear is an error.

The messages of errors are to be read after the name of what holds the object, such as a line or a file.
"""

import json
from typing import Any


def read_object(text: str) -> dict[str, Any]:
    """Reads an object, in which integers become their digits.

    Example:
        >>> read_object('{"label": 7, "width": 1.5}')
        {'label': '7', 'width': 1.5}

    Raises:
        ValueError: It is not one, or a key comes twice.
    """
    try:
        value = json.loads(text, parse_int=str, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not a JSON object, {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object, got {_shown(value)}")
    return value


def text_of(value: Any, key: str) -> str:
    """Returns the value of a key if it is text, as an integer read by ``read_object`` is.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        raise ValueError(f"has a list as {key}, {_shown(value)}, but this project is single-label")
    raise ValueError(f"must have text or an integer as {key}, got {_shown(value)}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key comes twice")
    return row


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
