"""The splits of a data set, each found in whatever form it has."""

from pathlib import Path

from datamodules.images.find import ImageFile, ImageFiles, find_images
from datamodules.sources.class_folders import ClassFolders
from datamodules.sources.source import Source
from datamodules.split_names import is_one_folder, no_split, split_exists


def list_images(path: Path) -> ImageFiles | None:
    """Lists the images of a folder or an archive, or one image file; None if there is nothing at ``path``."""
    if path.is_dir():
        return find_images(path)
    return ImageFiles([ImageFile(path.name, str(path))]) if path.exists() else None


class DataSet:
    """The splits ``train``, ``val`` and ``test`` of a data set.

    Args:
        root: Folder that holds the images.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
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
        raise no_split(self.root / split)

    @property
    def is_one_folder(self) -> bool:
        """Whether ``root`` itself is the folder of class folders that ``train`` stands for."""
        return (train := self.find("train")) is not None and train.where == str(self.root)

    def _open(self, split: str) -> Source | None:
        if split_exists(self.root / split):
            return ClassFolders(self.root / split)
        if split == "train" and not self.find("val") and not self.find("test") and is_one_folder(self.root):
            return ClassFolders(self.root)
        return None
