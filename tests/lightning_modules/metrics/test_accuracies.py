import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.metrics.accuracies import BalancedAccuracy, TopKAccuracy, ranked


@pytest.fixture
def answers():
    """500 images of 7 classes, each of which is there, without ties."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(500, 7, generator=generator), torch.randint(7, (500,), generator=generator)


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (BalancedAccuracy(7), MulticlassAccuracy(7, average="macro")),
        (TopKAccuracy(1), MulticlassAccuracy(7, average="micro")),
        (TopKAccuracy(5), MulticlassAccuracy(7, average="micro", top_k=5)),
    ],
)
def test_is_that_of_torchmetrics_and_the_same_bits_from_any_shares(metric, reference, answers):
    logits, targets = answers
    metric.update(logits, targets)
    whole = metric.compute()
    assert whole == pytest.approx(float(reference(logits, targets)), abs=1e-6)
    for processes in (2, 3):
        states = []
        for rank in range(processes):
            metric.reset()
            metric.update(logits[rank::processes], targets[rank::processes])
            states.append({name: value.clone() for name, value in metric.metric_state.items()})
        metric.reset()
        metric.update(logits[:0], targets[:0])
        for name in metric.metric_state:
            setattr(metric, name, sum(state[name] for state in states))
        assert torch.equal(metric.compute(), whole)


def test_a_class_without_an_image_counts_for_nothing():
    metric = BalancedAccuracy(4)
    metric.update(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert metric.compute().isnan()
    # of class 0 two of three are right, of class 1 one of one; one is taken for class 3, of which there is none
    metric.update(torch.eye(4)[[0, 0, 3, 1]], torch.tensor([0, 0, 0, 1]))
    assert metric.compute() == pytest.approx((2 / 3 + 1 / 1) / 2)


@pytest.mark.parametrize("classes", [3, 5, 12, 100, 1000])
def test_equal_scores_keep_the_order_of_classes(classes):
    generator = torch.Generator().manual_seed(classes)
    scores = torch.randint(3, (50, classes), generator=generator).float()
    values, labels = ranked(scores)
    for row, value, label in zip(scores.tolist(), values.tolist(), labels.tolist(), strict=True):
        assert label == sorted(range(classes), key=lambda i: (-row[i], i))
        assert value == [row[i] for i in label]
    assert torch.equal(labels[:, 0], scores.argmax(1))


def test_a_network_that_knows_nothing_has_the_first_classes_among_its_five():
    logits, targets = torch.zeros(12, 12), torch.arange(12)
    for k, expected in ((1, 1 / 12), (5, 5 / 12)):
        metric = TopKAccuracy(k)
        metric.update(logits, targets)
        assert metric.compute() == pytest.approx(expected)
