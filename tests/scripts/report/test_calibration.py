from dataclasses import replace

import numpy as np
import pytest

from callbacks.predictions.answers import Answers
from scripts.report.calibration import coverage, temperature_sentence, threshold_rows


@pytest.fixture
def answers():
    """Of the five images from the most to the least confident, all but the second and the last are right."""
    confidence = np.float32([0.6, 0.95, 0.7, 0.3, 0.9])
    predicted, targets = np.array([0, 0, 0, 0, 0]), np.array([0, 0, 0, 1, 1])
    return Answers(np.arange(5), targets, predicted, confidence, confidence)


def test_the_most_confident_are_kept_first(answers):
    shares, accuracy = coverage(answers)
    np.testing.assert_allclose(shares, [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1])
    np.testing.assert_allclose(accuracy, [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])


def test_an_image_at_the_threshold_is_kept(answers):
    assert threshold_rows(answers) == [
        ("0.5", "80.0 %", "75.0 %", 1),
        ("0.7", "60.0 %", "66.7 %", 2),
        ("0.9", "40.0 %", "50.0 %", 3),
    ]


def test_a_file_without_a_temperature_is_told_which_it_could_hold(answers):
    # Three of five images are right with a margin of 2: the likelihood is greatest where the sigmoid of 2 / T is 3/5.
    sentence = temperature_sentence(replace(answers, logits=np.tile(np.float32([2, 0]), (5, 1))), None)
    assert f"would have stored {2 / np.log(3 / 2):.3f}." in sentence


def test_a_bound_is_told(answers):
    assert "holds the temperature 20.000, the highest allowed, by which" in temperature_sentence(answers, 20.0)
