"""Temperature scaling: one number that calibrates class probabilities."""

import math

import numpy as np
import torch
from torch import Tensor

from lightning_modules.metrics.accuracies import ranked
from lightning_modules.metrics.calibration import CalibrationError, NegativeLogLikelihood

LOWEST, HIGHEST = 0.05, 20.0  # where every image is right, the best temperature would be 0
CALIBRATED = ("val/temperature", "val/nll_calibrated", "val/ece_calibrated")  # what a fit logs


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns the T between ``LOWEST`` and ``HIGHEST`` with the least negative log-likelihood of softmax(logits / T).

    The likelihood is convex in 1/T, so that its minimum is where its slope, the mean of Σ_k p_k z_k − z_target over the
    images, changes sign. In NumPy's float64, whose sums do not depend on the number of threads.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599, section 4.2.

    Args:
        logits: Outputs of the network ``(images, classes)``.
        targets: Class indices ``(images,)``.

    Returns:
        The temperature; 1 without images, or if a logit is not finite.
    """
    from scipy.optimize import brentq  # slow to import

    margins = logits.astype(np.float64)
    margins -= np.take_along_axis(margins, targets[:, None], 1)
    if not len(margins) or not np.isfinite(margins).all():
        return 1.0

    def slope(log_temperature: float) -> float:
        weights = margins * math.exp(-log_temperature)
        weights -= weights.max(1, keepdims=True)
        np.exp(weights, out=weights)
        return float((np.einsum("ij,ij->i", weights, margins) / weights.sum(1)).mean())

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if slope(low) <= 0:
        return LOWEST
    return HIGHEST if slope(high) >= 0 else math.exp(brentq(slope, low, high, xtol=1e-9))


def cross_fitted(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Measures what a temperature would do on images that it was not fitted on.

    Every other image is measured at the temperature of the rest, and the rest at theirs, so that each image counts
    once. As data sets list their images by class, both halves hold all classes.

    Args:
        logits: As for ``fit_temperature``.
        targets: As for ``fit_temperature``.

    Returns:
        Negative log-likelihood ``nll`` and expected calibration error ``ece``.
    """
    temperatures = np.ones((len(logits), 1), np.float32)
    for half in (0, 1):
        temperatures[half::2] = fit_temperature(logits[1 - half :: 2], targets[1 - half :: 2])
    numbers = {}
    alone = {"sync_on_compute": False}  # other processes may not be measuring
    for name, metric in {"nll": NegativeLogLikelihood(**alone), "ece": CalibrationError(**alone)}.items():
        metric.update(torch.from_numpy(logits / temperatures), torch.from_numpy(targets))
        numbers[name] = float(metric.compute())
    return numbers


def answers_of_views(views: list[Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """Averages the probabilities of several views of each image, and applies the temperature to the mean.

    In this order it leaves the order of the classes as it was, and calibrates better than before the mean (Rahaman and
    Thiery, "Uncertainty Quantification and Deep Ensembles", NeurIPS 2021, arXiv 2007.08792).

    Args:
        views: Logits of each view, float32 ``(batch, classes)``.
        temperature: What logits are divided by; 1 leaves the mean as it is.

    Returns:
        Class indices, most probable first, and probabilities in the order of the classes, both ``(batch, classes)``.
        The indices do not depend on the temperature, even if it makes probabilities equal.
    """
    logits = torch.stack(views)
    _, labels = ranked(logits.softmax(2).mean(0))
    return labels, probabilities_of_views(logits, temperature)


def probabilities_of_views(logits: Tensor, temperature: float) -> Tensor:
    """Maps logits ``(views, batch, classes)`` to the probabilities ``(batch, classes)`` of ``answers_of_views``."""
    if temperature == 1:
        return logits.softmax(2).mean(0)
    return (logits.log_softmax(2).logsumexp(0) / temperature).softmax(1)  # as a small probability may be 0 in float32
