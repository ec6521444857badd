"""A test that travels in an exported file: an image, as stored, and the probabilities that belong to it.

Whoever loads the file elsewhere can see whether he reads and resizes images as this project does. The image is drawn so
that he would notice if he did not.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from datamodules.files.errors import UserError
from datamodules.images.read import size_to_load, upright_rgb
from datamodules.images.transforms import eval_transform, side_to_load

Probabilities = Callable[[np.ndarray], np.ndarray]  # uint8 (batch, size, size, 3) → float32 (batch, classes)

# By how much the same file may answer differently on another machine; int8 and float16 depend on its kernels.
TOLERANCES = {"fp32": 0.002, "fp16": 0.01, "int8": 0.02}
MARGIN = 4  # a wrong way to read the image changes an answer by at least as many tolerances
ATTEMPTS = 24  # images that are drawn, until one has this margin
LEAST = 4e-6  # change of an answer that is more than the rounding of float32


def make_self_test(probabilities: Probabilities, image_size: int, precision: str) -> dict[str, Any]:
    """Draws images until one tells wrong ways to read it from the right one, and returns the header's ``self_test``.

    If none has the margin, as of a network that hardly answers images differently, the best one gets a smaller
    tolerance.

    Args:
        probabilities: The exported network, as its own runtime computes it.
        image_size: Side of its input in pixels.
        precision: Precision of the export, which decides the tolerance.

    Returns:
        ``image``, a PNG file in base64; ``probabilities`` in the order of the classes; and ``tolerance``, the largest
        difference of a probability that passes.

    Raises:
        UserError: The network answers the same, however an image is read.
    """
    wanted, best = TOLERANCES[precision], (0.0, b"", np.zeros(0))
    for seed in range(ATTEMPTS):
        content = draw(image_size, seed)
        right, *wrong = probabilities(np.stack([read(content, image_size), *misreadings(content, image_size)]))
        change = float(min(abs(answer - right).max() for answer in wrong))
        best = max(best, (change, content, right), key=lambda found: found[0])
        if change >= MARGIN * wanted:
            break
    change, content, right = best
    if change < LEAST:
        raise UserError(
            "the network answers the same for images that are nothing alike, so no self-test can be made of it: train "
            "it longer, or look for what made its weights constant"
        )
    return {
        "image": base64.b64encode(content).decode(),
        "probabilities": [float(value) for value in right],
        "tolerance": min(wanted, change / MARGIN),
    }


def self_test_difference(header: Mapping[str, Any], probabilities: Probabilities) -> float:
    """Runs the test of a decoded header, and returns the largest difference of a probability."""
    test = header["self_test"]
    (found,) = probabilities(read(base64.b64decode(test["image"]), header["image_size"])[None])
    return float(abs(found - np.array(test["probabilities"])).max())


def read(content: bytes, image_size: int) -> np.ndarray:
    """Reads an image file as prediction does, to uint8 ``(size, size, 3)``."""
    with Image.open(io.BytesIO(content)) as image:
        upright = upright_rgb(image)
    loaded = upright.resize(size_to_load(*upright.size, side_to_load(image_size)), Image.Resampling.BILINEAR)
    return eval_transform(image_size)(loaded, 0).numpy()


def misreadings(content: bytes, image_size: int) -> Iterator[np.ndarray]:
    """Yields the image as it looks when it is read wrongly, in the ways that are common."""
    with Image.open(io.BytesIO(content)) as image:
        stored = image.convert("RGB")
        upright = upright_rgb(image)
    size = size_to_load(*upright.size, side_to_load(image_size))
    bilinear, scales = Image.Resampling.BILINEAR, [old / new for old, new in zip(upright.size, size, strict=True)]
    yield _cropped(upright.resize(size, Image.Resampling.NEAREST), image_size)
    # Without antialiasing, as OpenCV's INTER_LINEAR and torch's interpolate do it.
    without = upright.transform(size, Image.Transform.AFFINE, (scales[0], 0, 0, 0, scales[1], 0), bilinear)
    yield _cropped(without, image_size)
    yield _cropped(upright.resize(size, Image.Resampling.BICUBIC), image_size)
    yield np.asarray(upright.resize((image_size, image_size), bilinear))  # squeezed
    yield _cropped(stored.resize(size[::-1], bilinear), image_size)  # on its side, as without EXIF
    yield _cropped(upright.resize(size, bilinear), image_size)[..., ::-1]  # blue, green, red


def draw(image_size: int, seed: int) -> bytes:
    """Draws a PNG file, to be turned by a quarter as its EXIF says, that is reduced to less than half its size.

    Random stripes across each other, one to a few pixels wide, in each colour: what is left of them depends on the
    filter. They also make a small file.
    """
    rng = np.random.default_rng(seed)
    shorter = 2 * side_to_load(image_size) + 3
    shape = (shorter, shorter * 4 // 3)
    widest = (2, 3, 4, 6)[seed % 4]
    y, x = (np.linspace(-1, 1, length) for length in shape)
    channels = []
    for _ in range(3):
        rows, columns = (np.repeat(rng.integers(0, 2, n), rng.integers(1, widest + 1, n))[:n] for n in shape)
        low, high = rng.integers(0, 100), rng.integers(150, 256)
        channels.append(np.where(rows[:, None] ^ columns, high, low))
    centre = rng.uniform(-0.3, 0.3, 2)
    inside = (y[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2 < rng.uniform(0.2, 0.9)
    pixels = np.where(inside[..., None], np.stack(channels, -1), rng.integers(0, 256, 3)).astype(np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(file, "PNG", exif=exif, optimize=True)
    return file.getvalue()


def _cropped(image: Image.Image, image_size: int) -> np.ndarray:
    left, top = (round((length - image_size) / 2) for length in image.size)
    return np.asarray(image.crop((left, top, left + image_size, top + image_size)))
