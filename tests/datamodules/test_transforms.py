import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules.transforms import eval_transform, train_transform


def photo(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def test_eval_equals_pillow_by_hand():
    image = photo(400, 320)
    # Shorter side to floor(1.14 · 224) = 255, the other in proportion, then the central 224 × 224.
    width = int(400 * 255 / 320)
    resized = image.resize((width, 255), Image.Resampling.BILINEAR)
    left, top = round((width - 224) / 2), round((255 - 224) / 2)
    pixels = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float64) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    result = eval_transform(224)(image)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), torch.from_numpy(expected).permute(2, 0, 1), atol=1e-6, rtol=1e-6)


def test_eval_size_is_exact_where_floats_are_not():
    assert 1.14 * 50 < 57  # in floats, which would resize to 56
    assert eval_transform(50).transforms[1].size == [57]


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (16, 1000), (40, 30)])  # whole pixels
def test_cutting_the_ends_off_a_strip_changes_nothing_that_is_seen(size):
    width, height = size
    waves = np.sin(np.arange(width) / 3)[None, :] + np.cos(np.arange(height) / 3)[:, None]
    image = Image.fromarray((60 * (waves + 2)).astype(np.uint8)).convert("RGB")
    transform = eval_transform(32)
    uncut = v2.Compose(transform.transforms[1:])
    torch.testing.assert_close(transform(image), uncut(image), atol=2 / 255 / 0.22, rtol=0)  # two grey levels


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_become_what_the_network_takes(size):
    for transform in (train_transform(32), eval_transform(32)):
        image = transform(Image.new("RGB", size, (200, 30, 60)))
        assert image.shape == (3, 32, 32)
        assert image.isfinite().all()


def test_train_is_the_reference_recipe():
    crop, flip, jitter, affine, *_ = train_transform(224).transforms
    assert (type(crop).__name__, tuple(crop.size), tuple(crop.scale)) == ("RandomResizedCrop", (224, 224), (0.8, 1.0))
    assert (type(flip).__name__, flip.p) == ("RandomHorizontalFlip", 0.5)
    assert type(jitter).__name__ == "ColorJitter"
    assert [jitter.brightness, jitter.contrast, jitter.saturation] == [(0.8, 1.2)] * 3
    assert jitter.hue == (-0.1, 0.1)
    assert type(affine).__name__ == "RandomAffine"
    assert [tuple(x) for x in (affine.degrees, affine.translate, affine.scale)] == [(-15, 15), (0.1, 0.1), (0.9, 1.1)]
    assert affine.shear is None


def test_train_draws_from_torchs_generator_and_keeps_the_range():
    image, transform = photo(90, 60), train_transform(32)
    torch.manual_seed(0)
    first = transform(image)
    second = transform(image)
    torch.manual_seed(0)
    assert torch.equal(transform(image), first)
    assert not torch.equal(first, second)
    assert first.shape == (3, 32, 32)
    low, high = (0 - 0.485) / 0.229, (1 - 0.406) / 0.225
    assert low - 1e-4 <= first.min() <= first.max() <= high + 1e-4


def test_train_mirrors_half_of_the_images():
    image = Image.fromarray(np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    torch.manual_seed(0)
    transform = train_transform(32)
    mirrored = sum(bool((t := transform(image))[0, 8:24, 8].mean() > t[0, 8:24, 24].mean()) for _ in range(400))
    assert abs(mirrored - 200) < 4 * 10  # four standard deviations of a fair coin thrown 400 times
