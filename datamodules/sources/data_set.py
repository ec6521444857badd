"""The splits of a data set, each found in whatever form it has."""

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.archives.pack_sums import require_complete_pack
from datamodules.archives.series import archives_of, is_archive, refuse_compressed, require_series, series_name
from datamodules.files.errors import UserError, listed
from datamodules.images.find import ImageFile, ImageFiles, find_images
from datamodules.lookalike_names import as_seen
from datamodules.sources.archived import Archived
from datamodules.sources.class_folders import ClassFolders
from datamodules.sources.label_table import Columns
from datamodules.sources.labelled_split import LabelledSplit, metadata_of, of_folder
from datamodules.sources.labels_file import LabelsFile
from datamodules.sources.source import Source
from datamodules.split_names import is_one_folder, no_split, split_exists

LABEL_OPTIONS = ("labels", "image_column", "label_column", "split_column", "class_list")  # which say where labels are


def list_to_predict(path: Path) -> ImageFiles | None:
    """Lists the images of a folder or an archive, or one image file; None if there is nothing at ``path``."""
    if path.is_dir():
        return find_images(path)
    if path.is_file() and is_archive(path):
        return Archived([path]).images()
    return ImageFiles([ImageFile(path.name, str(path))]) if path.exists() else None


class DataSet:
    """The splits ``train``, ``val`` and ``test`` of a data set.

    Args:
        root: Folder that holds the images.
        options: Options of ``ImageFolderDataModule``, of which ``LABEL_OPTIONS`` and ``group_column`` are used.
        unfinished: Whether shards count before the pack that writes them is complete.
    """

    def __init__(self, root: Path, options: Mapping[str, Any] | None = None, *, unfinished: bool = False) -> None:
        self.root = root
        self._options = options or {}
        self._unfinished = unfinished
        self._found: dict[str, Source | None] = {}

    def find(self, split: str) -> Source | None:
        """Returns the split, or None if the data set does not have it.

        Raises:
            UserError: The split is there in two forms, or is a dangling link, which must not pass for one left out.
        """
        if split not in self._found:
            self._found[split] = self._open(split)
        return self._found[split]

    def require(self, split: str) -> Source:
        """Returns the split; raises ``UserError`` if the data set does not have it."""
        if source := self.find(split):
            return source
        if self.labelled:
            raise UserError(
                f"{self.labelled.file} has no row of {split}, and {self.root} has no {split} either: add rows, or "
                "name the right column with --data.split_column"
            )
        raise no_split(self.root / split)

    @property
    def is_one_folder(self) -> bool:
        """Whether ``root`` itself is the folder of class folders that ``train`` stands for."""
        return isinstance(train := self.find("train"), ClassFolders) and train.folder == self.root

    def find_to_predict(self) -> Source | None:
        """Returns what a prediction is of, ``ROOT/test``, labelled or not, or else the images that are labelled test.

        Raises:
            UserError: As for ``find``.
        """
        return (self._open_place("test") if self.labelled else None) or self.find("test")

    def test_is_labelled(self) -> bool:
        """Tells whether the test images have labels: those of a folder do if one of its folders is a class of train."""
        test, train = self.find("test"), self.find("train")
        with suppress(UserError):  # no folders, or no classes
            names = set(map(as_seen, test.class_names() if test else ()))
            return not names.isdisjoint(map(as_seen, train.class_names() if train else names))
        return False

    @cached_property
    def labelled(self) -> LabelsFile | None:
        """The images of ``--data.labels``, if that is given."""
        labels = self._options.get("labels")
        return LabelsFile(Path(labels), self.root, self._columns) if labels else None

    @property
    def _columns(self) -> Columns:
        return Columns(*(self._options.get(f"{name}_column") for name in ("image", "label", "split", "group")))

    def _open(self, split: str) -> Source | None:
        if self.labelled and split in self.labelled.splits:
            return LabelledSplit(self.labelled, split)
        return self._open_place(split)

    def _open_place(self, split: str) -> Source | None:
        folder, archives = self.root / split, archives_of(self.root, split)
        exists = split_exists(folder)
        if exists + len(archives) > 1:
            places = [*([str(folder)] if exists else []), *map(series_name, archives)]
            raise UserError(f"{split} is there in several forms, {listed(places)}: move all but one away")
        if not self._unfinished and not exists:
            require_complete_pack(self.root, split, archives[0] if archives else ())
        if archives:
            require_series(archives[0])  # one alone of a series lacks the others
            return Archived(archives[0], self._options.get("class_list"), self._options.get("label_column"))
        if exists:
            metadata = metadata_of(folder, self._columns)
            return of_folder(metadata, self._columns, split) if metadata else ClassFolders(folder)
        if (
            split == "train"
            and not self.labelled
            and not self.find("val")
            and not self.find("test")
            and is_one_folder(self.root)
        ):
            return ClassFolders(self.root)
        refuse_compressed(self.root, split)
        return None
