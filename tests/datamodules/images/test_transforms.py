import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules.images.transforms import (
    eval_transform,
    normalize,
    reference_steps,
    reference_transform,
    train_transform,
)


def photo(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def resize_and_crop(image_size):
    """The evaluation pipeline as torchvision's steps."""
    steps = v2.Compose([v2.Resize(image_size * 114 // 100), v2.CenterCrop(image_size)])
    return lambda image: torch.from_numpy(np.array(steps(image)))


@pytest.mark.parametrize("size", [(400, 320), (320, 401), (90, 60), (255, 255), (33, 77)])
def test_eval_equals_torchvisions_steps(size):
    image = photo(*size)
    difference = (eval_transform(224)(image, 0).int() - resize_and_crop(224)(image).int()).abs()
    assert difference.max() <= 2  # coefficients and both passes are rounded
    assert difference.float().mean() < 0.2


def test_eval_size_is_exact_where_floats_are_not():
    assert 1.14 * 50 < 57  # in floats, which would resize to 56
    image = photo(64, 64)
    assert (eval_transform(50)(image, 0).int() - resize_and_crop(50)(image).int()).abs().max() <= 2


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (16, 1000), (40, 30)])
def test_a_strip_is_seen_as_if_it_were_resized_whole(size):
    width, height = size
    waves = np.sin(np.arange(width) / 3)[None, :] + np.cos(np.arange(height) / 3)[:, None]
    image = Image.fromarray((60 * (waves + 2)).astype(np.uint8)).convert("RGB")
    assert (eval_transform(32)(image, 0).int() - resize_and_crop(32)(image).int()).abs().max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_become_what_the_network_takes(size):
    for way in (train_transform, reference_transform, eval_transform):
        image = way(32)(Image.new("RGB", size, (200, 30, 60)), 0)
        assert image.shape == (32, 32, 3)
        assert image.dtype == torch.uint8


def test_normalize_equals_torchvisions():
    images = torch.randint(0, 256, (3, 3, 8, 9), dtype=torch.uint8)
    floats = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    torch.testing.assert_close(normalize(images), floats(images), atol=1e-6, rtol=1e-6)
    assert normalize(images.contiguous(memory_format=torch.channels_last)).is_contiguous(
        memory_format=torch.channels_last
    )


def test_the_steps_are_the_reference_recipe():
    crop, flip, jitter, affine = reference_steps(224)
    assert (type(crop).__name__, tuple(crop.size), tuple(crop.scale)) == ("RandomResizedCrop", (224, 224), (0.8, 1.0))
    assert (type(flip).__name__, flip.p) == ("RandomHorizontalFlip", 0.5)
    assert type(jitter).__name__ == "ColorJitter"
    assert [jitter.brightness, jitter.contrast, jitter.saturation] == [(0.8, 1.2)] * 3
    assert jitter.hue == (-0.1, 0.1)
    assert type(affine).__name__ == "RandomAffine"
    assert [tuple(x) for x in (affine.degrees, affine.translate, affine.scale)] == [(-15, 15), (0.1, 0.1), (0.9, 1.1)]
    assert affine.shear is None


@pytest.mark.parametrize("way", [train_transform, reference_transform, eval_transform])
def test_a_loader_process_may_be_sent_it(way):
    image = photo(90, 60)
    assert torch.equal(pickle.loads(pickle.dumps(way(32)))(image, 5), way(32)(image, 5))


@pytest.mark.parametrize("way", [train_transform, reference_transform])
def test_an_image_is_a_function_of_the_seed(way):
    image, transform = photo(90, 60), way(32)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = transform(image, 0)
    assert torch.equal(torch.rand(2), expected)  # torch's own stream is left alone
    assert torch.equal(transform(image, 0), first)
    assert not torch.equal(transform(image, 1), first)
