"""Finds image files and reads one of them."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datamodules.class_index import natural_key
from datamodules.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Pillow's rare formats, where its vulnerabilities are, stay shut whatever the suffix. "JPEG" opens cameras' MPO too.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


class ImageReadError(UserError):
    """An image file that cannot be read.

    Args:
        path: The file.
        reason: What its reader said.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the error survives its way back from a loader worker
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"expected {self.path} to be a readable image, it is not ({self.reason}): replace or remove the file"


def list_images(folder: Path) -> list[str]:
    """Paths of the image files below ``folder``, in natural order of their place in it.

    Hidden files and folders are passed over, and a folder that links lead to twice is entered once.

    Raises:
        UserError: A folder cannot be listed, or a link leads to itself.
    """
    found: list[str] = []
    entered: set[tuple[int, int]] = set()
    pending = [str(folder)]
    while pending:
        current = pending.pop()
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        try:
            with os.scandir(current) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        pending.append(entry.path)
                    elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                        found.append(entry.path)
        except OSError as error:
            raise UserError(
                f"expected to list the images in {current}, which failed ({error}): mend or remove it"
            ) from error
    return sorted(found, key=lambda path: natural_key(os.path.relpath(path, folder)))


def read_image(path: str) -> Image.Image:
    """Decodes a file to an upright RGB image.

    EXIF orientation is applied; 16-bit grey keeps its upper 8 bits, where Pillow's own conversion clips it to white.

    Raises:
        ImageReadError: The file is missing, damaged, or of a format that is not in ``FORMATS``.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).astype(np.uint8))
            return upright.convert("RGB")
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise ImageReadError(path, f"{type(error).__name__}: {error}") from error
