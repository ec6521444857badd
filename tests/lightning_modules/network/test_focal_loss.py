import math

import pytest
import torch
import torch.nn.functional as F

from lightning_modules import FocalLoss, focal_loss

LOGITS = [[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-4.0, 6.0, 1.0]]
TARGETS = [0, 2, 0]


def by_hand(gamma):
    """The definition in Python's own float64."""
    losses = []
    for row, target in zip(LOGITS, TARGETS, strict=True):
        p = math.exp(row[target]) / sum(math.exp(z) for z in row)
        losses.append(-((1 - p) ** gamma) * math.log(p))
    return losses


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_definition(gamma, dtype):
    logits, targets = torch.tensor(LOGITS, dtype=dtype), torch.tensor(TARGETS)
    expected = torch.tensor(by_hand(gamma), dtype=dtype)
    torch.testing.assert_close(focal_loss(logits, targets, gamma=gamma, reduction="none"), expected)
    torch.testing.assert_close(focal_loss(logits, targets, gamma=gamma, reduction="sum"), expected.sum())
    torch.testing.assert_close(FocalLoss(gamma)(logits, targets), expected.mean())


def value_and_gradient(loss, logits):
    logits = logits.detach().requires_grad_()
    value = loss(logits)
    return value, torch.autograd.grad(value.sum(), logits)[0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weights", [None, [0.0, 0.3, 1.0, 2.7, 1.0]])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_sum_over_classes_in_value_and_gradient(gamma, smoothing, weights, soft, dtype):
    """The formula as it is written, in float64, where rounding of 1 - p does not show for such logits."""
    logits = 3 * torch.randn(40, 5, dtype=torch.float64)
    targets = torch.rand(40, 5, dtype=torch.float64).softmax(1) if soft else torch.randint(5, (40,))
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def written(z):
        q = targets if soft else torch.eye(5, dtype=torch.float64)[targets]
        q = (1 - smoothing) * q + smoothing / 5
        p = z.exp() / z.exp().sum(1, keepdim=True)
        return ((1 if w is None else w) * q * (1 - p) ** gamma * -p.log()).sum(1)

    def ours(z):
        own = {"class_weights": None if w is None else w.to(dtype), "label_smoothing": smoothing}
        given = targets.to(dtype) if soft else targets
        torch.testing.assert_close(FocalLoss(gamma, **own)(z, given), focal_loss(z, given, gamma=gamma, **own))
        return focal_loss(z, given, gamma=gamma, reduction="none", **own)

    for mine, expected in zip(
        value_and_gradient(ours, logits.to(dtype)), value_and_gradient(written, logits), strict=True
    ):
        torch.testing.assert_close(mine, expected.to(dtype), atol=2e-6, rtol=2e-5)


def test_gamma_zero_is_torchs_cross_entropy_with_smoothing_probabilities_and_weights():
    logits, labels = torch.randn(64, 10), torch.randint(10, (64,))
    weights, soft = torch.rand(10), torch.rand(64, 10).softmax(1)
    for targets in (labels, soft):
        expected = F.cross_entropy(logits, targets, label_smoothing=0.2)
        torch.testing.assert_close(focal_loss(logits, targets, gamma=0.0, label_smoothing=0.2), expected)
    losses = F.cross_entropy(logits, labels, weight=weights, reduction="none")  # as torch's mean divides by weights
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0.0, class_weights=weights), losses.mean())


def test_gamma_zero_is_cross_entropy_in_value_and_gradient():
    logits = torch.randn(64, 100, requires_grad=True)
    targets = torch.randint(100, (64,))
    ours, theirs = focal_loss(logits, targets, gamma=0.0), F.cross_entropy(logits, targets)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


@pytest.mark.parametrize("gamma", [0.0, 1e-3, 0.5, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("margin", [0.0, 20.0, 90.0, 1e4, -20.0, -90.0, -1e4])
@pytest.mark.parametrize("target", [[0], [[1.0, 0.0, 0.0]]])
def test_value_and_gradient_stay_finite_from_p_0_to_p_1(gamma, margin, target):
    logits = torch.tensor([[margin, 0.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor(target), gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    if margin < -50:  # p is 0: the loss is the margin, and its gradient that of cross-entropy
        torch.testing.assert_close(loss, torch.tensor(-margin + math.log(2)))
        torch.testing.assert_close(gradient, torch.tensor([[-1.0, 0.5, 0.5]]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradient_equals_finite_differences(gamma):
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: focal_loss(z, torch.tensor([0, 1, 2, 4]), gamma=gamma), logits)


def test_is_computed_in_float32_inside_autocast():
    logits, targets = torch.randn(8, 10, dtype=torch.bfloat16), torch.randint(10, (8,))
    with torch.autocast("cpu", torch.bfloat16):
        loss = focal_loss(logits, targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, focal_loss(logits.float(), targets))


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (torch.zeros(2, 3), {"gamma": -0.1}, "gamma must be a finite number of at least 0, got -0.1"),
        (torch.zeros(2, 3), {"gamma": math.nan}, "gamma must be a finite number of at least 0, got nan"),
        (torch.zeros(2, 3), {"reduction": "max"}, "reduction must be 'mean', 'sum' or 'none', got 'max'"),
        (torch.zeros(2, 3), {"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
        (torch.zeros(2, 3), {"label_smoothing": math.nan}, "label_smoothing must be at least 0 and below 1, got nan"),
        (torch.zeros(3, 3), {}, r"targets must be \(batch,\) or \(batch, classes\), got shape \(2,\)"),
        (torch.zeros(2, 1), {}, r"at least 2 classes, got shape \(2, 1\)"),
    ],
)
def test_refuses(logits, options, message):
    with pytest.raises(ValueError, match=message):
        focal_loss(logits, torch.zeros(2, dtype=torch.long), **options)
