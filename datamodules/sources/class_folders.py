"""A folder with a folder of images for each class."""

import os
from collections.abc import Sequence
from pathlib import Path

from datamodules.class_index import natural_key
from datamodules.files.errors import UserError, listed
from datamodules.images.find import SUFFIXES, ImageFiles, find_images


class ClassFolders:
    """Images of a class in ``FOLDER/<class>/``, at any depth; see ``Source``.

    Args:
        folder: The folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def class_names(self) -> list[str]:
        """Takes the folder's direct subfolders, except hidden ones, in natural order.

        Raises:
            UserError: There are fewer than two subfolders, or a dangling link.
        """
        with os.scandir(self.folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            names = sorted((entry.name for entry in visible if entry.is_dir()), key=natural_key)
            gone = [entry.name for entry in visible if entry.is_symlink() and not os.path.exists(entry.path)]
        if gone:
            raise UserError(f"class folders of {self.folder} are dangling links, {listed(gone)}: repair or remove them")
        if len(names) < 2:
            files = len(visible) - len(names)
            raise UserError(
                f"{self.folder} must hold a subfolder for each of 2 or more classes, found {len(names)}"
                + (f" beside {files} files: move each file into the folder of its class" if files else "")
            )
        return names

    def by_class(self, names: Sequence[str]) -> tuple[dict[str, ImageFiles], ImageFiles]:
        """Scans the folder of each class.

        Raises:
            UserError: Images lie beside the class folders, or a folder cannot be listed.
        """
        with os.scandir(self.folder) as entries:
            stray = [e.name for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file() and e.name[0] != "."]
        if stray:
            raise UserError(
                f"{self.folder} holds images beside its class folders, {listed(sorted(stray, key=natural_key))}: move "
                "them into their class"
            )
        return {name: find_images(self.folder / name) for name in names}, ImageFiles()

    def images(self) -> ImageFiles:
        """Scans the whole folder."""
        return find_images(self.folder)
