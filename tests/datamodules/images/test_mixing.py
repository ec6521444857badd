import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from datamodules.images.mixing import Mix, draw_mix

ALPHAS = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}
SIDE = 24
CLASSES = 5


def draws(number, **options):
    options = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "probability": 1.0} | options
    return [draw_mix(seed, SIDE, **options) for seed in range(number)]


@pytest.mark.parametrize("kind", ALPHAS)
def test_targets_are_the_shares_of_the_pixels(kind):
    targets = torch.tensor([3, 0, 0, 4, 1])
    for mix in draws(200, **{kind: ALPHAS[kind]}):
        # An image of class k is 1 everywhere in channel k and 0 in the others, so that a mean counts its pixels.
        images = torch.eye(CLASSES)[targets][:, :, None, None].repeat(1, 1, SIDE, SIDE)
        counted = mix.mix(images).mean((2, 3))
        soft = mix.soft_targets(targets, CLASSES)
        torch.testing.assert_close(soft, counted, atol=1e-6, rtol=0)
        torch.testing.assert_close(soft.sum(1), torch.ones(5))
        assert (counted.gather(1, mix.heavier(targets)[:, None])[:, 0] >= 0.5 - 1e-6).all()


@pytest.mark.parametrize("kind", ALPHAS)
def test_it_does_with_the_drawn_numbers_what_torchvision_does(kind):
    targets = torch.tensor([3, 0, 0, 4, 1])
    theirs = {"mixup_alpha": v2.MixUp, "cutmix_alpha": v2.CutMix}[kind](num_classes=CLASSES)
    for mix in draws(20, **{kind: ALPHAS[kind]}):
        images = torch.randn(5, 3, SIDE, SIDE)
        params = {"labels": targets, "batch_size": 5, "lam": mix.share, "lam_adjusted": mix.share, "box": mix.box}
        torch.testing.assert_close(mix.soft_targets(targets, CLASSES), theirs.transform(targets, params))
        torch.testing.assert_close(mix.mix(images.clone()), theirs.transform(images, params))


def test_images_stay_channels_last_and_where_they_are():
    for mix in (Mix(0.3), Mix(0.75, (0, 4, 12, 16))):
        images = torch.randn(4, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
        mixed = mix.mix(images)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        assert mixed.data_ptr() == images.data_ptr()


def test_probability_and_the_coin():
    found = draws(4000, **ALPHAS, probability=0.6)
    mixed = [mix for mix in found if mix]
    cut = [mix for mix in mixed if mix.box]
    # Within four standard deviations of a binomial count.
    assert abs(len(mixed) - 0.6 * 4000) < 4 * (4000 * 0.6 * 0.4) ** 0.5
    assert abs(len(cut) - 0.5 * len(mixed)) < 4 * (len(mixed) * 0.25) ** 0.5
    assert draws(50, **ALPHAS, probability=0.0) == [None] * 50
    assert draws(50) == [None] * 50


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_have_the_beta_distribution(alpha):
    shares = [mix.share for mix in draws(2000, mixup_alpha=alpha)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_boxes_are_squares_about_a_uniform_centre_clipped_at_the_edge():
    side = 1000
    mixes = [draw_mix(seed, side, mixup_alpha=0.0, cutmix_alpha=1.0, probability=1.0) for seed in range(4000)]
    left, top, right, bottom = np.array([mix.box for mix in mixes]).T / side
    width, height = right - left, bottom - top
    inside = (left > 0) & (top > 0) & (right < 1) & (bottom < 1)
    assert inside.any()
    assert width[inside] == pytest.approx(height[inside])
    # A length r = √u about a uniform centre loses r²/8 at each edge on average, and u is uniform as 1 - share is:
    # E(r - r²/4) = 2/3 - 1/8, and E((r - r²/4)²) = 1/2 - 1/5 + 1/48. Tolerances are four standard errors.
    for length in (width, height):
        assert length.mean() == pytest.approx(2 / 3 - 1 / 8, abs=4 * length.std() / 4000**0.5)
    area = width * height
    assert area.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=4 * area.std() / 4000**0.5)
    assert [mix.share for mix in mixes] == pytest.approx(1 - area)


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 100.0])
@pytest.mark.parametrize("kind", ALPHAS)
def test_extreme_parameters_draw_shares(kind, alpha):
    assert all(0 <= mix.share <= 1 for mix in draws(100, **{kind: alpha}))
