"""Which real file is behind each image of a scan, so that a part of the scan can be compared with another's."""

import os
from contextlib import suppress
from pathlib import Path

from datamodules.images.find import Identity, ImageFiles


class RealFiles:
    """Looks real files up in a scan, without a call of the system for each.

    Args:
        found: The scan.
    """

    def __init__(self, found: ImageFiles) -> None:
        self._keys = {path: key for key, path in found.real.items()}
        self._folders: dict[str, str] = {}

    def of(self, path: str) -> dict[Identity | str, str]:
        """Returns what ``ImageFiles.real`` holds of the image at ``path``; nothing if it is gone since the scan."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)
        if real in self._keys:
            return {self._keys[real]: real}
        with suppress(OSError):  # a link, or one of several names that hard links give
            status, real = os.stat(path), os.path.realpath(path)
            return {(status.st_dev, status.st_ino): real, real: real}
        return {}


def folder_links(found: ImageFiles, root: Path) -> dict[str, str]:
    """Returns the places below ``root`` of folders that the scan did not enter again, each with where it had been.

    Folders below these are among them, as far as images lie in them.
    """
    if not found.loops:
        return {}
    entered: dict[str, str] = {}  # places by real folder
    for place, path in {image.name.rpartition("/")[0]: image.path for image in found.images}.items():
        entered.setdefault(os.path.realpath(os.path.dirname(path)), place)
    links = {}
    for link in found.loops:
        place, target = os.path.relpath(link, root).replace(os.sep, "/"), os.path.realpath(link)
        for real, where in entered.items():
            if real == target or real.startswith(os.path.join(target, "")):
                links[f"{place}{real[len(target.rstrip(os.sep)) :].replace(os.sep, '/')}"] = where
    return links
