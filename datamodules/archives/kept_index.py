"""Indexes of archives, kept in the user's cache folder, so that an archive's headers are read once."""

import hashlib
import json
import os
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.archives.index import Index, make_index
from datamodules.files.atomic_file import atomic_file
from datamodules.files.errors import UserError
from datamodules.images.cache import cache_folder

FORMAT = 2  # of the files; another number makes old ones unknown


def open_index(path: str, label_column: str | None = None) -> tuple[Index, os.stat_result]:
    """Returns the index of an archive, and the archive's status for which it is true.

    Processes that make it at the same time do not disturb each other. Where it cannot be kept, it is made each time.

    Args:
        path: A ``.tar`` or ``.zip`` file.
        label_column: As for ``read_label``.

    Raises:
        UserError: As ``make_index`` tells.
    """
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): name an archive that is there") from error
    # Programs that copy keep the size and the time of change, but not the inode and the time of its status.
    times = {"mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns, "inode": status.st_ino}
    key = {"format": FORMAT, "size": status.st_size, **times, "label_column": label_column}
    file = _file(real, label_column)
    # There may be none, or a damaged one.
    with suppress(OSError, ValueError, LookupError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile):
        return _read(file, key), status
    index = make_index(path, label_column)
    with suppress(OSError, UserError):  # not writable
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, key, index)
    return index, status


def _file(real: str, label_column: str | None) -> Path:
    name = hashlib.sha256(os.fsencode(f"{real}\0{label_column}")).hexdigest()[:32]
    try:
        return cache_folder("disk") / "archives" / f"{name}.npz"
    except UserError:  # no home folder, so that nothing is there and nothing can be written
        return Path(os.devnull) / name


def _write(file: Path, key: dict[str, Any], index: Index) -> None:
    about = {**key, "passed_over": [(*what, n) for what, n in index.passed_over.items()], "dangling": index.dangling}
    with atomic_file(file, in_own_folder=True) as temporary, open(temporary, "wb") as opened:
        np.savez(
            opened,
            about=_packed([json.dumps(about)]),
            names=_packed(index.names),
            offsets=index.offsets,
            sizes=index.sizes,
            links=index.links,
            labelled=_packed(list(index.labels)),
            labels=_packed(list(index.labels.values())),
            faulty=_packed(list(index.faults)),
            faults=_packed(list(index.faults.values())),
        )


def _read(file: Path, key: dict[str, Any]) -> Index:
    """Reads a kept index without unpickling; raises one of several errors if it is damaged or not of this archive."""
    with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as kept:
        about = json.loads(_unpacked(kept["about"])[0])
        if {name: about[name] for name in key} != key:
            raise ValueError("of an archive that has changed")
        names = _unpacked(kept["names"])
        offsets, sizes, links = (kept[name] for name in ("offsets", "sizes", "links"))
        labels = dict(zip(_unpacked(kept["labelled"]), _unpacked(kept["labels"]), strict=True))
        faults = dict(zip(_unpacked(kept["faulty"]), _unpacked(kept["faults"]), strict=True))
    if not len(names) == len(offsets) == len(sizes) == len(links):
        raise ValueError("incomplete")
    passed_over = Counter({(folder, what): count for folder, what, count in about["passed_over"]})
    return Index(names, offsets, sizes, links, labels, faults, passed_over, about["dangling"])


def _packed(texts: list[str]) -> np.ndarray:
    """Makes one block of texts without NULs: names and labels are checked for them, and faults escape them."""
    return np.frombuffer("\0".join(texts).encode("utf-8", "surrogateescape"), np.uint8)


def _unpacked(block: np.ndarray) -> list[str]:
    return block.tobytes().decode("utf-8", "surrogateescape").split("\0") if len(block) else []
