import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from lightning_modules.metrics.calibration import CalibrationError
from lightning_modules.metrics.temperature import HIGHEST, LOWEST, answers_of_views, cross_fitted, fit_temperature


def likelihood(logits, targets, temperature):
    return F.cross_entropy(torch.from_numpy(logits).double() / temperature, torch.from_numpy(targets)).item()


@pytest.mark.parametrize(("images", "classes", "scale"), [(300, 7, 1.0), (301, 100, 8.0), (40, 2, 0.3)])
def test_it_is_what_another_minimiser_finds(images, classes, scale):
    random = np.random.default_rng(classes)
    targets = random.integers(classes, size=images)
    logits = (scale * (random.normal(size=(images, classes)) + 2 * np.eye(classes)[targets])).astype(np.float32)
    bounds = (math.log(LOWEST), math.log(HIGHEST))
    expected = minimize_scalar(lambda x: likelihood(logits, targets, math.exp(x)), bounds=bounds, method="bounded",
                               options={"xatol": 1e-10})  # fmt: skip
    assert fit_temperature(logits, targets) == pytest.approx(math.exp(expected.x), rel=1e-6)


def test_of_two_classes_it_has_a_closed_form():
    # Nine of ten images are right with a margin of 3. The likelihood is greatest where the sigmoid of 3 / T is 0.9.
    logits = np.tile(np.float32([3, 0]), (10, 1)) + 5  # to which all logits may add a number
    targets = np.array([0] * 9 + [1])
    assert fit_temperature(logits, targets) == pytest.approx(3 / math.log(9))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([0, 1, 2], LOWEST),  # all are right: the colder, the better
        ([1, 2, 0], HIGHEST),  # all are wrong: the hotter, the better
        ([], 1.0),
    ],
)
def test_it_stays_between_its_bounds(targets, expected):
    logits = np.eye(3, dtype=np.float32)[: len(targets)]
    assert fit_temperature(logits, np.array(targets, int)) == expected


def test_logits_that_are_not_finite_get_none():
    assert fit_temperature(np.float32([[1, 0], [np.inf, 0]]), np.array([0, 1])) == 1


@pytest.mark.parametrize("images", [1, 2, 51])
def test_each_half_is_measured_at_the_temperature_of_the_other(images):
    random = np.random.default_rng(images)
    targets = random.integers(5, size=images)
    logits = (4 * random.normal(size=(images, 5)) + 4 * np.eye(5)[targets]).astype(np.float32)
    losses, error = [], CalibrationError()
    for i in range(images):
        others = [j for j in range(images) if j % 2 != i % 2]
        cooled = torch.from_numpy(logits[[i]] / np.float32(fit_temperature(logits[others], targets[others])))
        losses.append(F.cross_entropy(cooled, torch.from_numpy(targets[[i]])).item())
        error.update(cooled, torch.from_numpy(targets[[i]]))
    expected = {"nll": np.mean(losses), "ece": error.compute().item()}
    assert cross_fitted(logits, targets) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_the_mean_over_views_is_tempered_and_keeps_its_order(count, temperature):
    views = list(4 * torch.randn(count, 20, 6, generator=torch.Generator().manual_seed(count)))
    labels, probabilities = answers_of_views(views, temperature)
    mean = torch.stack([view.double().softmax(1) for view in views]).mean(0)
    powers = mean ** (1 / temperature)
    torch.testing.assert_close(probabilities.double(), powers / powers.sum(1, keepdim=True), rtol=1e-5, atol=1e-9)
    assert torch.equal(labels, mean.argsort(1, descending=True))
    if temperature == 1:
        plain = views[0].softmax(1) if count == 1 else (views[0].softmax(1) + views[1].softmax(1)) / 2
        assert torch.equal(probabilities, plain)


def test_the_order_stays_where_heat_makes_probabilities_equal():
    view = torch.tensor([[1.0, 1.0 + 2**-22, 0.0]])
    labels, probabilities = answers_of_views([view], 20.0)
    assert probabilities[0, 0] == probabilities[0, 1]  # of which argmax would take the first
    assert labels.tolist() == [[1, 0, 2]]


def test_a_probability_too_small_for_float32_is_not_lost():
    _, probabilities = answers_of_views([torch.tensor([[0.0, -200.0]])], 20.0)  # e^-200 is 0 in float32
    assert probabilities[0, 1].item() == pytest.approx(1 / (1 + math.exp(10)), rel=1e-5)
