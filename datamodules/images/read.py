"""Reads an image file of any kind as upright RGB; every failure is one typed error.

``callbacks/guards/bad_images`` and ``callbacks/predictions/writer`` decide what happens then.
"""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageFile

from datamodules.files.errors import UserError
from datamodules.images import location

# Pillow's rare formats, where its vulnerabilities are, stay shut whatever the suffix. "JPEG" opens cameras' MPO too.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageReadError(UserError):
    """An image file that cannot be read.

    Args:
        path: Where the image lies; see ``location``.
        reason: The reader's message.
        machine: Whether the machine is to blame and not the file.
        sample: Position in the data set, -1 if it was not read for one.
    """

    def __init__(self, path: str, reason: str, machine: bool = False, sample: int = -1) -> None:
        super().__init__(path, reason, machine, sample)  # all, so that it survives its way back from a loader worker
        self.path = path
        self.reason = reason
        self.machine = machine
        self.sample = sample

    def at(self, sample: int) -> "ImageReadError":
        """Returns the error with the position in the data set of the image that it is about."""
        return ImageReadError(self.path, self.reason, self.machine, sample)

    def __str__(self) -> str:
        if self.machine:
            return f"out of memory or file handles while reading {location.shown(self.path)} ({self.reason}): free some"
        return f"cannot read {location.shown(self.path)} ({self.reason}): replace or remove the file"


def read_image(
    path: str, max_pixels: int = MAX_PIXELS, shorter_side: int | None = None, *, content: BinaryIO | None = None
) -> Image.Image:
    """Decodes a file to an upright RGB image.

    EXIF orientation is applied. Transparent pixels become white, as most viewers show them. 16-bit grey is scaled to 8
    bits, while Pillow's own conversion clips it to white. If a file holds several pictures, the first is read.

    Args:
        path: Where the image lies; see ``location``.
        max_pixels: The largest width times height that is decoded.
        shorter_side: Length in pixels to which a longer shorter side is reduced. A JPEG of twice that or more is
            decoded at 1/2, 1/4 or 1/8 of its size to begin with, which skips most of the work.
        content: The file's content, where it lies in memory and ``path`` is only its name.

    Raises:
        ImageReadError: The file is missing, damaged, too large, or in a format that is not in ``FORMATS``.
    """
    with open_image(path, max_pixels, content) as image:
        if shorter_side is None:
            return upright_rgb(image)
        image.draft(None, (shorter_side, shorter_side))
        upright = upright_rgb(image)
        return upright.resize(size_to_load(*upright.size, shorter_side), Image.Resampling.BILINEAR)


def size_to_load(width: int, height: int, shorter_side: int) -> tuple[int, int]:
    """Returns width and height after a shorter side of more than ``shorter_side`` pixels is reduced to that.

    Example:
        >>> size_to_load(640, 480, shorter_side=240)
        (320, 240)
    """
    shorter, longer = sorted((width, height))
    if shorter <= shorter_side:
        return width, height
    longer = longer * shorter_side // shorter  # rounded down, as torchvision's Resize does
    return (shorter_side, longer) if width <= height else (longer, shorter_side)


@contextmanager
def open_image(path: str, max_pixels: int = MAX_PIXELS, content: BinaryIO | None = None) -> Iterator[Image.Image]:
    """Opens a file, as ``read_image`` does, for a block that may decode it.

    Raises:
        ImageReadError: The file cannot be read, or the block raised an exception.
    """
    source: str | BinaryIO = path if content is None else content
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # Pillow refuses above twice this, before it takes memory
    try:
        if content is None:
            source = location.open_content(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes above half the limit, and of damaged EXIF
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise Image.DecompressionBombError
                if image.format != "PNG":
                    yield image
                    return
                _require_sound_png(image)
            with Image.open(source, formats=FORMATS) as image:  # again, as the check has read to the file's end
                yield image
    except Image.DecompressionBombError as error:
        raise ImageReadError(path, f"it has more pixels than --data.max_pixels, {max_pixels:,}") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        machine = isinstance(error, MemoryError) or getattr(error, "errno", None) in OUT_OF_RESOURCES
        reason = str(error).replace(f" {source!r}", "").strip(": ")  # the sentence names the path already
        raise ImageReadError(path, f"{type(error).__name__}: {reason}".strip(": "), machine) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _require_sound_png(image: ImageFile.ImageFile) -> None:
    """Checks what Pillow does not check by default; the image cannot be decoded afterwards.

    Raises:
        SyntaxError: A checksum is wrong, or the file ends early.
        ValueError: Pillow would misread it.
    """
    rawmode = str(image.tile[0][3]) if image.tile else ""
    if "transparency" in image.info and ";" in rawmode and image.mode != "P":
        raise ValueError(f"a transparent colour of {rawmode} pixels, which Pillow misreads; save it with 8 bits")
    image.verify()  # the checksums


def upright_rgb(image: Image.Image) -> Image.Image:
    """Decodes an open image to RGB; see ``read_image``."""
    return _opaque(_turned(_eight_bit(image), orientation(image))).convert("RGB")


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if there is none or it cannot be read."""
    with suppress(Exception):  # viewers show an image with damaged EXIF as it is stored
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in _UPRIGHT else 1
    return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        return ImageChops.invert(image)  # Pillow takes every CMYK JPEG for one of Adobe's, which store 255 - ink
    return image


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    # Not ImageOps.exif_transpose, which copies upright images and fails where it cannot rewrite the EXIF.
    return image.transpose(_UPRIGHT[orientation]) if orientation != 1 else image


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
