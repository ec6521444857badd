"""What a report says about probabilities: what a temperature improves, and how many images a threshold leaves over."""

import numpy as np

from callbacks.predictions.answers import Answers
from lightning_modules.metrics.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature

THRESHOLDS = (0.5, 0.7, 0.9)  # of --prediction.min_probability


def calibration_rows(answers: Answers, nll: float, ece: float) -> list[tuple[str, str, str]]:
    """Returns name, value as measured and value after cross-fitted temperatures of both measures of calibration.

    Args:
        answers: Answers with logits.
        nll: Negative log-likelihood as measured.
        ece: Expected calibration error as measured.
    """
    assert answers.logits is not None
    after = cross_fitted(answers.logits, answers.targets)
    return [
        ("negative log-likelihood", f"{nll:.4f}", f"{after['nll']:.4f}"),
        ("expected calibration error", f"{ece:.4f}", f"{after['ece']:.4f}"),
    ]


def temperature_sentence(answers: Answers, stored: float | None) -> str:
    """Returns which temperature the model's file holds, or the one that a fit would have stored in it."""
    if stored is not None:
        return f"The model's file holds the temperature {_text(stored)}, by which predict divides logits."
    assert answers.logits is not None
    fitted = fit_temperature(answers.logits, answers.targets)
    return (
        f"The model's file holds no temperature, so predict writes probabilities as measured; a fit with "
        f"--model.temperature fit would have stored {_text(fitted)}."
    )


def _text(temperature: float) -> str:
    bound = {LOWEST: ", the lowest allowed", HIGHEST: ", the highest allowed"}.get(temperature, "")
    return f"{temperature:.3f}{bound}"


def coverage(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for each number of images of which the most confident are kept, their share of all and their accuracy.

    Both are ``(images,)``, from the most confident image alone to all of them.
    """
    right = (answers.predicted == answers.targets)[np.argsort(-answers.confidence, kind="stable")]
    kept = np.arange(1, len(right) + 1)
    return kept / len(right), right.cumsum() / kept


def threshold_rows(answers: Answers) -> list[tuple[str, str, str, int]]:
    """Returns threshold, share of images at or above it, their accuracy, and number of images below it."""
    right, rows = answers.predicted == answers.targets, []
    for threshold in THRESHOLDS:
        kept = answers.confidence >= threshold
        accuracy = f"{100 * right[kept].mean():.1f} %" if kept.any() else ""
        rows.append((f"{threshold}", f"{100 * kept.mean():.1f} %", accuracy, int((~kept).sum())))
    return rows
