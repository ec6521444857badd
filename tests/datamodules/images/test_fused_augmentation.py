import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from datamodules.images.fused_augmentation import hue_matrix, jitter_colours
from datamodules.images.transforms import reference_transform, train_transform


def photo(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("size", [300, 1100])
def test_contrast_turns_to_the_mean_of_large_images_too(size):
    """A factor of 0 leaves the grey of the mean: 0.299 · 200 + 0.587 · 100 + 0.114 · 50 = 124.2."""
    image = Image.new("RGB", (size, size + 7), (200, 100, 50))
    grey = jitter_colours(image, torch.tensor([1, 0, 2, 3]), 1.0, 0.0, 1.0, 0.0)
    assert grey.getpixel((3, 5)) == (124, 124, 124)


def test_one_seed_means_the_same_picture_as_torchvisions_steps():
    """Geometry to the pixel: of a grey image without hue, only where rounding may differ by a level or two."""
    grey = photo(150, 110).convert("L").convert("RGB")
    fused, reference = train_transform(96), reference_transform(96)
    for seed in range(60):
        ours, theirs = fused(grey, seed).int(), reference(grey, seed).int()
        # Four roundings to 8 bits and a contrast of up to 1.2; a nearest pixel half-way between two may be either.
        assert ((ours - theirs).abs() > 6).double().mean() < 1e-3, seed
        rims = [way(Image.new("RGB", (150, 110), (200, 200, 200)), seed).sum(2) == 0 for way in (fused, reference)]
        assert (rims[0] != rims[1]).double().mean() < 1e-3, seed


def test_colours_are_torchvisions_but_for_hue():
    jitter = v2.ColorJitter(0.2, 0.2, 0.2)  # without hue: its factor 0 leaves colours alone
    for seed in range(40):
        image = photo(64, 48, seed)
        torch.manual_seed(seed)
        drawn = jitter.make_params([image])
        ours = np.asarray(jitter_colours(image, **{**drawn, "hue_factor": 0.0}), int)
        # Pillow rounds down in each of three steps.
        difference = np.abs(ours - np.asarray(jitter.transform(image, drawn), int))
        assert np.median(difference) <= 2
        assert np.mean(difference) <= 3


def test_a_shift_of_hue_is_near_pillows():
    """On colours as photos have them, of a saturation up to a half; grey stays exactly what it is."""
    colours = np.random.default_rng(0).integers(60, 200, (1, 4000, 3)).astype(np.uint8)
    spread = colours.max(2) - colours.min(2)
    colours = colours[:, spread[0] < 60]
    for shift in (-25, -10, 5, 25):
        turned = [(hue + shift) % 256 for hue in range(256)] + [*range(256)] * 2
        expected = np.asarray(Image.fromarray(colours).convert("HSV").point(turned).convert("RGB"), float)
        error = np.abs(colours @ hue_matrix(shift).T - expected)
        assert error.mean() < 6
        # About the grey axis, the matrix is a turn by the shift's angle, which keeps a colour's distance from it.
        turn = hue_matrix(shift) @ np.exp([0, 2j * np.pi / 3, -2j * np.pi / 3])
        assert abs(np.angle(turn[0]) + 2 * np.pi * shift / 256) < np.radians(2)
        assert abs(np.abs(turn[0]) - 1) < 0.02
        np.testing.assert_allclose(hue_matrix(shift).sum(1), 1, atol=1e-4)


def test_the_distribution_is_the_references():
    """Mean and deviation of each channel, of saturation, of contrast and of the black rim, over 1,500 draws each."""

    def statistics(way, first_seed):
        image, transform = photo(80, 64, 5), way(32)
        draws = torch.stack([transform(image, first_seed + seed) for seed in range(1500)]).double()
        spread = draws.amax(3) - draws.amin(3)
        return torch.stack([
            *draws.mean((1, 2)).unbind(1), *draws.std((1, 2)).unbind(1), spread.mean((1, 2)),
            (draws.sum(3) == 0).double().mean((1, 2)) * 100, draws[:, 8:24, 8].mean((1, 2)),
        ])  # fmt: skip

    ours, theirs = statistics(train_transform, 0), statistics(reference_transform, 10_000)
    standard_error = ((ours.var(1) + theirs.var(1)) / 1500).sqrt()
    # Four standard errors for chance, and two grey levels for the hue that a matrix cannot turn exactly.
    assert ((ours.mean(1) - theirs.mean(1)).abs() < 4 * standard_error + 2).all()
    assert (ours.std(1) / theirs.std(1)).log().abs().max() < 0.15
