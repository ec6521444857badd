import math

import numpy as np
import pytest

from scripts.report.label_doubts import doubt_labels


def test_by_hand():
    probability = np.array(
        [
            [0.8, 0.1, 0.1],  # class 0, whose threshold is (0.8 + 0.3 + 0.4) / 3 = 0.5
            [0.3, 0.6, 0.1],  # class 0, reaches class 1's threshold: doubted
            [0.4, 0.5, 0.1],  # class 0, the most probable class is below its threshold: not doubted
            [0.2, 0.7, 0.1],  # class 1, whose threshold is (0.7 + 0.45) / 2 = 0.575
            [0.5, 0.45, 0.05],  # class 1, reaches class 0's threshold to the digit: doubted
            [0.05, 0.6, 0.35],  # class 2, whose threshold is (0.35 + 0.35) / 2: reaches both, class 1 is more probable
            [0.6, 0.05, 0.35],  # class 2, likewise class 0
        ]
    )
    found = doubt_labels(probability, np.array([0, 0, 0, 1, 1, 2, 2]))
    assert found.doubted.tolist() == [False, True, False, False, True, True, True]
    assert found.suggested.tolist() == [1, 1, 1, 0, 0, 1, 0]
    assert found.order.tolist() == [1, 5, 6, 2, 4, 3, 0]  # 0.3, twice 0.35 in the order given, 0.4, 0.45, 0.7, 0.8


def test_a_label_that_is_the_most_probable_class_is_not_doubted():
    # The thresholds are 0.75 and 0.25: the second image reaches only the other class's, with less than its label has.
    probability = np.array([[0.9, 0.1], [0.6, 0.4], [0.75, 0.25], [0.75, 0.25]])
    assert not doubt_labels(probability, np.array([0, 0, 1, 1])).doubted[1]


def test_a_class_without_an_image_is_suggested_but_causes_no_doubt():
    found = doubt_labels(np.array([[0.1, 0.0, 0.9], [0.2, 0.8, 0.0]]), np.array([0, 1]))
    assert found.doubted.tolist() == [False, False]
    assert found.suggested.tolist() == [2, 0]


def slowly(probability, targets):
    """The definition, image by image."""
    classes = range(len(probability[0]))
    thresholds = {}
    for j in classes:
        own = [p[j] for p, label in zip(probability, targets, strict=True) if label == j]
        if own:
            thresholds[j] = math.fsum(own) / len(own)
    doubted, suggested = [], []
    for p, label in zip(probability, targets, strict=True):
        reached = [j for j in classes if j in thresholds and p[j] >= thresholds[j]]
        best = max(reached, key=lambda j: p[j], default=label)
        doubted.append(best != label and max(p) != p[label])
        suggested.append(max((j for j in classes if j != label), key=lambda j: p[j]))
    order = sorted(range(len(targets)), key=lambda i: probability[i][targets[i]])
    return doubted, suggested, order


@pytest.mark.parametrize("seed", range(5))
def test_a_second_implementation_agrees(seed):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 7, 300) % 6  # one class more than there are labels
    logits = rng.normal(0, 1, (300, 7)) + 2 * (np.arange(7) == np.where(rng.random(300) < 0.8, targets, 0)[:, None])
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = doubt_labels(probability, targets)
    doubted, suggested, order = slowly(probability.tolist(), targets.tolist())
    assert found.doubted.tolist() == doubted
    assert 20 < sum(doubted) < 200
    assert found.suggested.tolist() == suggested
    assert found.order.tolist() == order
