"""The file that makes a pack of shards complete, and how an incomplete one is told."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import SHARD, kind_of

SUMS = "SHA256SUMS"
_LINE = re.compile(r"[0-9a-f]{64} [ *](?:\./)?(.+)")  # as sha256sum writes it


def require_complete_pack(root: Path, split: str, archives: Sequence[Path]) -> None:
    """Checks that a split is not a part of what ``cbam100 pack`` wrote, with which classes would be lost in silence.

    Args:
        root: The folder.
        split: Name of the split.
        archives: Its archives in ``root``, of which there may be none.

    Raises:
        UserError: Shards lack their ``SHA256SUMS``, or are not those that it names.
    """
    there = {path.name for path in archives}
    named = _names_in(root / SUMS, split)
    if named is None:
        faults = [f"it has no {SUMS}"] if archives and kind_of(archives[0]) == SHARD else []
    else:
        lacking = sorted(named - there)
        foreign = [path.name for path in archives if path.name not in named and kind_of(path) == SHARD]
        faults = [f"it lacks {listed(lacking)}"] if lacking else []
        faults += [f"{SUMS} does not name {listed(foreign)}"] if foreign else []
    if faults:
        raise UserError(
            f"the pack in {root} is not complete, as {' and '.join(faults)}: repeat the cbam100 pack that was "
            f"interrupted, or copy all of its files, {SUMS} among them, and no others"
        )


def _names_in(sums: Path, split: str) -> set[str] | None:
    """Returns the shards of a split that are named in the file; None if it cannot be read."""
    with suppress(OSError):
        lines = map(_LINE.fullmatch, sums.read_text("utf-8", "replace").splitlines())
        return {line[1] for line in lines if line and re.fullmatch(rf"{split}-[0-9]{{6}}\.tar", line[1])}
    return None
