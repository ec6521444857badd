import pytest
import torch

from lightning_modules.network.class_weights import class_weights

COUNTS = [1, 3, 0, 400, 100_000]


@pytest.mark.parametrize(
    ("weighting", "unscaled"),
    [
        ("balanced", [1 / n if n else 0 for n in COUNTS]),
        ("effective", [(1 - 0.999) / (1 - 0.999**n) if n else 0 for n in COUNTS]),
    ],
)
def test_equals_its_formula_with_mean_1_over_images(weighting, unscaled):
    mean = sum(n * w for n, w in zip(COUNTS, unscaled, strict=True)) / sum(COUNTS)
    weights = class_weights(torch.tensor(COUNTS), weighting)
    torch.testing.assert_close(weights, torch.tensor([w / mean for w in unscaled]))


@pytest.mark.parametrize("weighting", ["balanced", "effective"])
def test_equal_numbers_weigh_1(weighting):
    assert torch.equal(class_weights(torch.tensor([7, 7, 7]), weighting), torch.ones(3))
