import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from datamodules.files.errors import UserError
from datamodules.images.read import read_image
from datamodules.images.transforms import eval_transform, side_to_load
from lightning_modules.exports.runtime import open_runtime
from lightning_modules.exports.self_test import draw, make_self_test, read, self_test_difference
from tests.lightning_modules.exports.conftest import SIZE, eager, images, plain_model


def strangers(content, size, resample, *, upright=True, antialias=True):
    """Reads an image as the documents say, by Pillow alone, but for what the options change."""
    image = Image.open(io.BytesIO(content))
    image = (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    side, shorter = size * 114 // 100, min(image.size)
    width, height = (length * side // shorter for length in image.size)
    if antialias:
        image = image.resize((width, height), resample)
    else:  # samples between the nearest four pixels
        x, y = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip((width, height), image.size, strict=True))
        pixels = np.asarray(image, np.float64)
        x, y = (np.clip(at, 0, length - 1.001) for at, length in zip((x, y), image.size, strict=True))
        left, top, fx, fy = x.astype(int), y.astype(int), (x % 1)[None, :, None], (y % 1)[:, None, None]
        rows = pixels[top] * (1 - fy) + pixels[top + 1] * fy
        image = Image.fromarray((rows[:, left] * (1 - fx) + rows[:, left + 1] * fx).round().astype(np.uint8))
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


WRONG = {
    "nearest": {"resample": Image.Resampling.NEAREST},
    "without antialiasing": {"resample": Image.Resampling.BILINEAR, "antialias": False},
    "bicubic": {"resample": Image.Resampling.BICUBIC},
    "Lanczos": {"resample": Image.Resampling.LANCZOS},
    "without EXIF": {"resample": Image.Resampling.BILINEAR, "upright": False},
}


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_only_the_documented_way_passes(format, precision, export):
    opened = open_runtime(export(format, precision))
    test, content = opened.header["self_test"], base64.b64decode(opened.header["self_test"]["image"])

    def difference(**options):
        (found,) = opened.probabilities(strangers(content, SIZE, **options)[None])
        return abs(found - np.array(test["probabilities"])).max()

    assert difference(resample=Image.Resampling.BILINEAR) < test["tolerance"]
    for name, options in WRONG.items():
        assert difference(**options) > 2 * test["tolerance"], name
    assert test["tolerance"] <= 0.02
    assert len(content) < 100_000


@pytest.mark.parametrize("size", [32, 64, 224])
def test_reads_as_prediction_does(size, tmp_path):
    content = draw(size, 0)
    (tmp_path / "drawn.png").write_bytes(content)
    expected = eval_transform(size)(read_image(str(tmp_path / "drawn.png"), shorter_side=side_to_load(size)), 0)
    assert np.array_equal(read(content, size), expected.numpy())
    stranger = strangers(content, size, Image.Resampling.BILINEAR)
    assert abs(stranger.astype(int) - expected.numpy()).max() <= 1
    assert draw(size, 0) == content


def test_a_network_that_answers_everything_the_same_has_none():
    def constant(pixels):
        return np.full((len(pixels), 4), 0.25, np.float32)

    with pytest.raises(UserError, match="the network answers the same for images that are nothing alike"):
        make_self_test(constant, SIZE, "fp32")


def test_a_network_that_hardly_tells_images_apart_gets_a_smaller_tolerance():
    def flat(pixels):
        return 0.1 + (eager(plain_model(), pixels) - 0.1) / 1000

    test = make_self_test(flat, SIZE, "fp32")
    assert 1e-6 < test["tolerance"] < 0.001
    header = {"self_test": test, "image_size": SIZE}
    assert self_test_difference(header, flat) == pytest.approx(0, abs=1e-7)
    assert self_test_difference(header, lambda pixels: flat(images(1))) > test["tolerance"]
