"""Images whose labels stand in a file: one for all splits, or Hugging Face's in the folder of a split."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.class_index import natural_key
from datamodules.files.errors import UserError
from datamodules.images.find import ImageFiles
from datamodules.sources.label_table import NO_COLUMN, Columns
from datamodules.sources.labels_file import LabelsFile
from datamodules.split_names import visible_folders

METADATA = ("metadata.csv", "metadata.jsonl")


class LabelledSplit:
    """The images of one split of a labels file; see ``Source``.

    Args:
        labelled: The images of all splits.
        split: A split that has rows.
    """

    def __init__(self, labelled: LabelsFile, split: str) -> None:
        self._labelled = labelled
        self._split = split
        several = not labelled.split and labelled.has_splits
        self.where = f"{labelled.file} ({split})" if several else str(labelled.file)

    def class_names(self) -> list[str]:
        """Takes the labels of the split, in natural order.

        Raises:
            UserError: There are fewer than two.
        """
        labels = sorted(self._labelled.labels(self._split), key=natural_key)
        if len(labels) < 2:
            raise UserError(f"{self.where} must have 2 or more labels, but it has only {', '.join(labels)}: add rows")
        return labels

    def by_class(self, names: Sequence[str]) -> tuple[dict[str, ImageFiles], ImageFiles]:
        """Looks the rows' images up; what has no row is passed over in the first split.

        Raises:
            UserError: As ``LabelsFile.by_split`` tells.
        """
        labelled = self._labelled.by_split[self._split]
        by_class = {
            name: self._labelled.files(
                [image._replace(name=image.name.removeprefix(f"{name}/")) for image in labelled.get(name, ())]
            )
            for name in names
        }
        return by_class, self._labelled.passed_over if self._split == self._labelled.splits[0] else ImageFiles()

    def images(self) -> ImageFiles:
        """Lists the images of the rows, or all of a split's own folder, as a prediction needs no labels.

        Raises:
            UserError: As ``LabelsFile.by_split`` tells.
        """
        if self._labelled.split:
            return self._labelled.found
        by_label = self._labelled.by_split[self._split]
        return self._labelled.files([*itertools.chain.from_iterable(by_label.values())])


def metadata_of(folder: Path) -> Path | None:
    """Returns Hugging Face's file of labels in a split's folder; None if there is none, or there are class folders.

    Raises:
        UserError: There are two such files.
    """
    files = [folder / name for name in METADATA if (folder / name).is_file()]
    if not files or len([*visible_folders(folder)]) > 1:
        return None
    if len(files) > 1:
        raise UserError(f"{folder} has {files[0].name} and {files[1].name} as labels: remove or rename one of them")
    return files[0]


def of_folder(file: Path, columns: Columns, split: str) -> LabelledSplit:
    """Opens the file of labels in a split's own folder, in which a column of splits does not count."""
    return LabelledSplit(LabelsFile(file, file.parent, replace(columns, split=NO_COLUMN), split), split)
