import pickle

import numpy as np
import pytest
from PIL import Image

from datamodules.image_files import ImageReadError, list_images, read_image


def test_lists_images_in_natural_order_whatever_their_case_and_depth(tmp_path):
    for name in ("10.jpg", "2.JPG", "sub/1.PNG", ".hidden.jpg", ".git/3.jpg", "notes.txt", "x.webp", "y.Jpeg", "z.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.removeprefix(f"{tmp_path}/") for path in list_images(tmp_path)]
    assert found == ["2.JPG", "10.jpg", "sub/1.PNG", "x.webp", "y.Jpeg", "z.bmp"]


def test_link_loops_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [path.rsplit("/", 1)[1] for path in list_images(tmp_path)] == ["1.jpg"]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1", "I;16"])
def test_every_mode_becomes_rgb_of_the_same_grey(mode, tmp_path):
    grey = np.repeat(np.arange(0, 256, 17, dtype=np.uint8), 4).reshape(8, 8)  # 0, 17, … 255
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)  # 0 to 65535
    elif mode == "1":
        grey = np.where(grey > 127, 255, 0).astype(np.uint8)
        image = Image.fromarray(grey).convert("1")
    else:
        image = Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "x.png")
    read = read_image(str(tmp_path / "x.png"))
    assert read.mode == "RGB"
    assert np.array_equal(np.asarray(read), np.repeat(grey[..., None], 3, 2))


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("RGB", (8, 8), (200, 30, 60)).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    assert np.abs(np.asarray(read_image(str(tmp_path / "x.jpg")), int) - (200, 30, 60)).max() <= 3


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored image has to be turned 90° clockwise
    image.save(tmp_path / "x.png", exif=exif)
    upright = read_image(str(tmp_path / "x.png"))
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil",
    [
        truncated,
        lambda path: path.write_text("not an image"),
        lambda path: path.touch(),
        lambda path: None,
        lambda path: Image.new("RGB", (4, 4)).save(path, format="GIF"),
    ],
    ids=["truncated", "text", "empty", "missing", "gif in disguise"],
)
def test_an_unreadable_file_is_named(spoil, tmp_path):
    spoil(tmp_path / "x.jpg")
    with pytest.raises(ImageReadError, match=r"expected .*x\.jpg to be a readable image, it is not") as caught:
        read_image(str(tmp_path / "x.jpg"))
    returned = pickle.loads(pickle.dumps(caught.value))  # as from a loader worker
    assert str(returned) == str(caught.value)
