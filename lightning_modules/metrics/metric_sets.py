"""The metrics of training, and of validation and test."""

from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_modules.metrics.accuracies import BalancedAccuracy, TopKAccuracy
from lightning_modules.metrics.calibration import CalibrationError, NegativeLogLikelihood
from lightning_modules.metrics.exact_mean import ExactMean


def training_metrics(num_classes: int) -> MetricCollection:
    """Builds ``train/loss`` and ``train/accuracy``."""
    return MetricCollection(
        {"loss": ExactMean(), "accuracy": MulticlassAccuracy(num_classes, average="micro")},
        compute_groups=False,
        prefix="train/",
    )


def evaluation_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Builds loss, accuracies and calibration errors, whose names begin with ``prefix``."""
    return MetricCollection(
        {
            "loss": ExactMean(),
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "accuracy_macro": BalancedAccuracy(num_classes),
            "accuracy_top5": TopKAccuracy(min(5, num_classes)),
            "nll": NegativeLogLikelihood(),
            "ece": CalibrationError(),
        },
        compute_groups=False,
        prefix=prefix,
    )
