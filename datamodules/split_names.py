"""The folders of a data set by name, and those that were perhaps meant by another."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SPLITS = ("train", "val", "test")

# What others call them, with perhaps a year or a word behind it: Train, valid, val2017, test_images.
_ALIKE = {
    "train": r"train(ing)?",
    "val": r"val(id(ation)?)?|dev(el(opment)?)?|eval(uation)?",
    "test": r"test(ing|s)?",
}


def lookalikes(folder: Path) -> list[str]:
    """Folders that may be meant by a split's ``folder``, which is not there.

    Looked for beside it, as ``Val`` or ``valid``, and in the folders beside it, as ``images/val`` or ``archive/val``.
    """
    if folder.name not in SPLITS:
        return []
    pattern = re.compile(rf"({_ALIKE[folder.name]})([\W\d_].*)?", re.IGNORECASE)
    beside = list(_folders(folder.parent))
    inside = (entry for name in beside if Path(name).name not in SPLITS for entry in _folders(Path(name)))
    return sorted(name for name in (*beside, *inside) if pattern.fullmatch(Path(name).name))


def advice(folder: Path) -> str:
    """What to do about a split's ``folder`` that is not there."""
    if names := lookalikes(folder):
        return f"rename {' or '.join(names)} if it is meant, or pass another --data.root"
    return "create it"


def _folders(parent: Path) -> Iterator[str]:
    with suppress(OSError), os.scandir(parent) as entries:
        yield from (entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir())
