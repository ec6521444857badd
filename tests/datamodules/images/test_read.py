"""Every kind of file that a real folder holds: what is read from it, or how it is refused."""

import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

from datamodules.images.read import ImageReadError, read_image

REPOSITORY = Path(__file__).parents[3]
GREY = np.repeat(np.arange(0, 256, 17, dtype=np.uint8), 4).reshape(8, 8)  # 0, 17, … 255
COLOUR = (200, 30, 60)


def read(path, **options):
    image = read_image(str(path), **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGB", "RGBA"])
def test_every_mode_becomes_rgb_of_the_same_grey(mode, tmp_path):
    grey = np.where(GREY > 127, 255, 0) if mode == "1" else GREY
    # 16 bits hold 257 times as much
    image = Image.fromarray(GREY.astype(np.uint16) * 257 if mode == "I;16" else grey.astype(np.uint8))
    image.convert(mode).save(tmp_path / "x.png")
    assert np.array_equal(read(tmp_path / "x.png"), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P with an alpha for each colour", "P with one clear colour", "webp"])
def test_what_is_transparent_becomes_white(kind, tmp_path):
    path = tmp_path / ("x.webp" if kind == "webp" else "x.png")
    alpha = Image.fromarray(GREY)
    if kind.startswith("P"):
        image = Image.new("P", (8, 8))
        image.putpalette([*COLOUR, *COLOUR])
        ImageDraw.Draw(image).rectangle((0, 0, 7, 3), fill=1)
        one = kind.endswith("one clear colour")
        image.save(path, transparency=1 if one else bytes([255, 51]))
        coverage = np.where(np.arange(8)[:, None] < 4, 0.0 if one else 51 / 255, 1.0) * np.ones((8, 8))
        colour = COLOUR
    else:
        colour = (90, 90, 90) if kind == "LA" else COLOUR
        image = Image.new("RGB", (8, 8), colour)
        image.putalpha(alpha)
        (image.convert("LA") if kind == "LA" else image).save(path, **({"lossless": True} if kind == "webp" else {}))
        coverage = GREY / 255
    expected = coverage[..., None] * np.array(colour) + (1 - coverage[..., None]) * 255
    assert np.abs(read(path) - expected).max() <= 1


def without_adobe_marker(path):
    content = path.read_bytes()
    start = content.index(b"\xff\xee")
    length = int.from_bytes(content[start + 2 : start + 4], "big")
    path.write_bytes(content[:start] + content[start + 2 + length :])


@pytest.mark.parametrize("kind", ["Adobe's, inverted", "without Adobe's marker"])
def test_cmyk_becomes_rgb_whichever_way_it_is_stored(kind, tmp_path):
    image = Image.new("RGB", (8, 8), COLOUR).convert("CMYK")
    if kind.startswith("Adobe"):
        image.save(tmp_path / "x.jpg", quality=100)
    else:
        ImageChops.invert(image).save(tmp_path / "x.jpg", quality=100)  # Pillow inverts once more
        without_adobe_marker(tmp_path / "x.jpg")
    assert np.abs(read(tmp_path / "x.jpg") - COLOUR).max() <= 3


def test_progressive_and_multi_picture_jpegs(tmp_path):
    first, second = Image.new("RGB", (40, 30), COLOUR), Image.new("RGB", (40, 30), (0, 0, 0))
    first.save(tmp_path / "progressive.jpg", progressive=True)
    first.save(tmp_path / "mpo.jpg", "MPO", save_all=True, append_images=[second])
    for name in ("progressive.jpg", "mpo.jpg"):
        assert read(tmp_path / name).shape == (30, 40, 3)
        assert np.abs(read(tmp_path / name) - COLOUR).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_all_eight_exif_orientations_are_the_same_upright_picture(suffix, tmp_path):
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16], upright[16:, 32:] = (250, 0, 0), (0, 0, 250)  # no symmetry of its own
    stored = [
        upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1],
        upright.transpose(1, 0, 2), np.rot90(upright), np.rot90(upright.transpose(1, 0, 2), 2), np.rot90(upright, -1),
    ]  # fmt: skip
    for orientation, pixels in enumerate(stored, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
        Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **lossless.get(suffix, {}))
        assert np.abs(read(path) - upright).max() <= (8 if suffix == "jpg" else 0), orientation


@pytest.mark.parametrize("exif", [b"Exif\0\0 nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0", b""])
def test_damaged_exif_leaves_the_image_as_it_is_stored(exif, tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.jpg", quality=100, exif=exif)
    assert np.abs(read(tmp_path / "x.jpg")[..., 0] - GREY).max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_are_read(size, tmp_path):
    Image.new("RGB", size, COLOUR).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png").shape == (size[1], size[0], 3)


def noise(path, **options):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, **options)


def cut(path, *, suffix, share=0.5, **options):
    noise(path.with_suffix(suffix), **options)
    content = path.with_suffix(suffix).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def one_wrong_byte(path):
    noise(path.with_suffix(".png"))
    content = bytearray(path.with_suffix(".png").read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def deep_with_a_clear_colour(path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(path, format="PNG", transparency=17 * 257)


SPOILT = {
    "PNG with a wrong checksum": one_wrong_byte,
    "16-bit PNG with a transparent colour, which Pillow misreads": deep_with_a_clear_colour,
    "JPEG cut at 50 %": lambda path: cut(path, suffix=".jpeg"),
    "progressive JPEG cut at 50 %": lambda path: cut(path, suffix=".jpeg", progressive=True),
    "PNG cut at 50 %": lambda path: cut(path, suffix=".png"),
    "WebP cut at 50 %": lambda path: cut(path, suffix=".webp"),
    "BMP cut at 50 %": lambda path: cut(path, suffix=".bmp"),
    "JPEG cut in its header": lambda path: cut(path, suffix=".jpeg", share=0.02),
    "zero bytes": lambda path: path.touch(),
    "text": lambda path: path.write_text("not an image"),
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "GIF": lambda path: noise(path, format="GIF"),
    "TIFF": lambda path: noise(path, format="TIFF"),
    "EPS": lambda path: noise(path, format="EPS"),
    "PSD": lambda path: path.write_bytes(struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 4, 4, 8, 3) + bytes(100)),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_an_unreadable_file_is_one_typed_error_with_its_path(kind, tmp_path):
    SPOILT[kind](tmp_path / "x.jpg")
    with pytest.raises(ImageReadError, match=r"cannot read .*x\.jpg \(.+\)") as caught:
        read_image(str(tmp_path / "x.jpg"))
    assert caught.value.path == str(tmp_path / "x.jpg")
    returned = pickle.loads(pickle.dumps(caught.value))  # as from a loader worker
    assert str(returned) == str(caught.value)


def test_the_pixel_limit_is_an_error_and_not_a_warning(tmp_path):
    Image.new("RGB", (101, 81)).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png", max_pixels=8181).shape == (81, 101, 3)
    with pytest.raises(ImageReadError, match=r"more pixels than --data.max_pixels, 8,180"):
        read(tmp_path / "x.png", max_pixels=8180)
    assert Image.MAX_IMAGE_PIXELS > 8181  # other users of Pillow keep their limit


def test_a_machine_without_file_handles_is_not_the_files_fault(tmp_path):
    noise(tmp_path / "x.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_handle = os.dup(0)
    os.close(next_handle)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_handle, hard))
    try:
        with pytest.raises(
            ImageReadError, match=r"out of memory or file handles while reading .*Too many open"
        ) as caught:
            read_image(str(tmp_path / "x.png"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.machine


def png_bomb(side):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(bytes((side // 8 + 1) * side))  # black, 1 bit a pixel
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BOMBS = {
    "20,000 × 20,000 PNG": png_bomb(20_000),  # in the band where Pillow raises of itself
    "10,000 × 10,000 PNG": png_bomb(10_000),  # in the band where Pillow only warns
    "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "WebP": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB3x", 10, 0) + b"\xff\x3f\x00" * 2,
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory where Linux writes it")
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(kind, tmp_path):
    (tmp_path / "bomb.jpg").write_bytes(BOMBS[kind])
    program = r"""
import re, sys, types
# The package itself would import torch, which takes more memory than a bomb may.
sys.modules["datamodules"] = package = types.ModuleType("datamodules")
package.__path__ = ["datamodules"]
from datamodules.images.read import ImageReadError, read_image
try:
    read_image(sys.argv[1])
except ImageReadError as error:
    print(error.reason, int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) // 1024, sep="|")
"""
    command = [sys.executable, "-c", program, str(tmp_path / "bomb.jpg")]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout
    reason, peak = output.strip().split("|")
    assert reason == "it has more pixels than --data.max_pixels, 64,000,000"
    assert int(peak) < 100  # MiB, Python and Pillow included; a decoded one would take 400 or more


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_content_in_memory_is_read_like_a_file(suffix, tmp_path):
    path = tmp_path / f"x.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(np.dstack([GREY, GREY.T, GREY])).resize((64, 32)).save(
        path, **{} if suffix == "bmp" else {"exif": exif}
    )
    for options in ({}, {"shorter_side": 9}):
        assert np.array_equal(read(path, **options), read("x", content=io.BytesIO(path.read_bytes()), **options))
    with pytest.raises(
        ImageReadError, match=r"^cannot read its name \(UnidentifiedImageError: cannot identify image file\)"
    ):
        read_image("its name", content=io.BytesIO(b"no image"))
    with pytest.raises(ImageReadError, match="more pixels"):
        read_image("its name", max_pixels=100, content=io.BytesIO(path.read_bytes()))
