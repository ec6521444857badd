import numpy as np
import pytest

from scripts.export.acceptance import Evaluation, Fidelity


def evaluation(targets, probabilities, lead=1.0):
    probabilities = np.array(probabilities, np.float32)
    return Evaluation(np.array(targets), probabilities.argmax(1), np.full(len(targets), lead), probabilities, 1.0)


CERTAIN = {name: row for name, row in zip("abc", np.eye(3, dtype=np.float32), strict=True)}


def answers(classes):
    return np.stack([CERTAIN[name] for name in classes])


def test_counts():
    checkpoint = evaluation([0, 0, 1, 2], answers("abbc"))
    comparison = Fidelity.between(checkpoint, answers("acba"))
    assert comparison == Fidelity(
        images=4, right=2, checkpoint_right=3, only_checkpoint=1, only_file=0, agreeing=2, clear_changes=2,
        largest_difference=1.0,
    )  # fmt: skip
    assert comparison.drop == 0.25
    assert checkpoint.right_among(1) == 3
    assert checkpoint.right_among(2) == 4  # of equal probabilities the first class comes first
    assert checkpoint.right_among(3) == 4


@pytest.mark.parametrize(("lead", "passes"), [(0.9e-4, True), (1.1e-4, False)])
def test_fp32_may_only_change_what_float32_does_not_decide(lead, passes):
    checkpoint = evaluation([0, 1], [[0.5, 0.49, 0.01], [0.1, 0.8, 0.1]], lead)
    comparison = Fidelity.between(checkpoint, np.array([[0.49, 0.5, 0.01], [0.1, 0.8, 0.1]], np.float32))
    reason = comparison.refusal("fp32", max_drop=1.0)  # which is for the others
    assert (reason is None) == passes
    assert passes or "1 of 2 validation images into another class" in reason
    assert comparison.refusal("fp16", 0.5) is None
    assert comparison.largest_difference == pytest.approx(0.01)


@pytest.mark.parametrize(("wrong", "passes"), [(0, True), (5, True), (6, False)])
def test_others_may_lose_max_drop(wrong, passes):
    """Of 1000 images, 0.005 are 5."""
    comparison = Fidelity.between(
        evaluation([0] * 1000, answers("a" * 1000)), answers("b" * wrong + "a" * (1000 - wrong))
    )
    reason = comparison.refusal("int8", 0.005)
    assert (reason is None) == passes
    assert passes or "is 0.9940, which is 0.0060 less than the checkpoint's 1.0000 (McNemar's p = 0.031)" in reason


def test_more_accurate_passes_and_no_number_does_not():
    checkpoint = evaluation([0, 0], answers("ba"))
    assert Fidelity.between(checkpoint, answers("aa")).refusal("fp16", 0.0) is None
    broken = answers("aa") * np.float32("nan")
    assert "not numbers" in Fidelity.between(checkpoint, broken).refusal("fp16", 1.0)
