import math

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from lightning_modules.metrics.calibration import CalibrationError, NegativeLogLikelihood


@pytest.fixture
def answers():
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(500, 7, generator=generator), torch.randint(7, (500,), generator=generator)


def test_calibration_error_is_that_of_torchmetrics(answers):
    logits, targets = answers
    error = CalibrationError()
    error.update(logits, targets)
    reference = MulticlassCalibrationError(7, n_bins=15, norm="l1")
    assert error.compute() == pytest.approx(float(reference(logits.softmax(1), targets)), abs=1e-6)


def test_calibration_error_of_known_confidences():
    # four images at confidence 0.8 of which two are right, one at 0.6 that is right: 4/5 · 0.3 + 1/5 · 0.4
    confidence = torch.tensor([0.8, 0.8, 0.8, 0.8, 0.6])
    logits = torch.stack([confidence, 1 - confidence], 1).log()
    error = CalibrationError()
    error.update(logits, torch.tensor([0, 0, 1, 1, 0]))
    assert error.compute() == pytest.approx(0.32, abs=1e-6)
    images, means, accuracies = error.reliability()
    assert images.sum() == 5
    assert means[12] == pytest.approx(0.8, abs=1e-6)
    assert accuracies[12] == 0.5


def test_what_is_predicted_is_what_the_accuracy_counts():
    logits = torch.tensor([[0.0, 1e-9]])  # whose probabilities are equal in float32
    error = CalibrationError()
    error.update(logits, torch.tensor([1]))
    accuracy = MulticlassAccuracy(2, average="micro")
    assert error.reliability()[2].nansum() == accuracy(logits, torch.tensor([1])) == 1


@pytest.mark.parametrize("metric", [CalibrationError, NegativeLogLikelihood])
def test_shares_of_processes_add_up_to_the_last_bit(metric, answers):
    logits, targets = answers
    whole = metric()
    whole.update(logits, targets)
    for processes in (2, 3):
        shares = [metric() for _ in range(processes)]
        for rank, share in enumerate(shares):
            share.update(logits[rank::processes], targets[rank::processes])
        summed = metric()
        summed.update(logits[:0], targets[:0])
        for name in summed.metric_state:
            setattr(summed, name, sum(getattr(share, name) for share in shares))
        assert torch.equal(summed.compute(), whole.compute())


def test_likelihood_of_even_odds():
    likelihood = NegativeLogLikelihood()
    likelihood.update(torch.zeros(3, 10), torch.tensor([0, 4, 9]))
    assert likelihood.compute() == pytest.approx(math.log(10), abs=1e-6)


def test_without_images_there_is_no_error():
    error = CalibrationError()
    error.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert error.compute().isnan()
