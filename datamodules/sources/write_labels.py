"""Writes the labels of a data set into a file that ``--data.labels`` reads back as the same data set."""

import os
from pathlib import Path

from datamodules.class_index import natural_key
from datamodules.files.atomic_file import atomic_file, require_writable
from datamodules.files.csv_cells import to_cell
from datamodules.files.csv_tables import write_csv
from datamodules.files.errors import UserError, listed
from datamodules.images.location import is_member
from datamodules.sources.data_set import DataSet
from datamodules.sources.label_names import several_in_one
from datamodules.sources.label_table import LabelRow
from datamodules.split_names import SPLITS, place_below, require_outside_splits

HEADER = ("file_name", "label", "split")


def require_new_labels_file(path: Path, option: str, data: DataSet) -> None:
    """Checks before work begins that the labels can be written to ``path``.

    Nothing that is there is replaced: the user may have corrected labels in it.

    Args:
        path: The file.
        option: Command-line option that chooses it.
        data: The data set, among whose images it must not lie.

    Raises:
        UserError: It ends in another suffix than ``.csv``, exists, lies among the images, or cannot be written.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"{option} must end in .csv, got {path}: rename it")
    require_writable(path.parent, option)
    require_outside_splits(path.parent, option, data.root)
    if data.labelled and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(data.root)):
        raise UserError(f"{path} lies in {data.root}, whose files are data: choose another {option}")
    if path.exists() and (not path.is_file() or path.stat().st_size):
        raise UserError(
            f"{path} exists, and labels may have been corrected in it, so it is not overwritten: move it away, or "
            f"choose another {option}"
        )


def write_labels(path: Path, data: DataSet) -> int:
    """Writes a row for each labelled image: its place below the root, its label and its split.

    Unreadable images have rows too: which are used is a run's decision (``on_bad_image``), and the file stands for the
    same data set.

    Returns:
        The number of rows.

    Raises:
        UserError: A split cannot be listed, images lie in an archive, labels would not be read back, or the file cannot
            be written.
    """
    rows = [row for split in SPLITS for row in _rows(data, split)]
    if not rows:
        raise UserError(f"there are no labelled images below {data.root}, so no labels to write: check the path")
    if several := several_in_one({row.label for row in rows}):
        raise UserError(
            f"the classes {listed(sorted(several, key=natural_key))} cannot be written, as they would be read as "
            "several labels in one: rename them"
        )
    with atomic_file(path) as temporary:
        write_csv(temporary, HEADER, ((to_cell(row.image), to_cell(row.label), row.split) for row in rows))
    return len(rows)


def _rows(data: DataSet, split: str) -> list[LabelRow]:
    source = data.find(split)
    if not source or (split == "test" and not data.test_is_labelled()):
        return []
    rows = []
    by_class, _ = source.by_class(source.class_names())
    for label, found in by_class.items():
        for image in found.images:
            if is_member(image.path):
                raise UserError(
                    f"the images of {source.where} lie in an archive, where a file of labels cannot name them: leave "
                    "out --labels, as the archive holds the labels itself"
                )
            rows.append(LabelRow(place_below(image.path, data.root), label, split, "", 0))
    return sorted(rows, key=lambda row: natural_key(row.image))
