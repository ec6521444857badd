"""Which real file is behind each image of a scan, so that a part of the scan can be compared with another's."""

import os
from contextlib import suppress

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
