"""Figures about a classifier, drawn with matplotlib and readable at 100 classes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from callbacks.predictions.answers import Answers
from datamodules.files.own_files import MARK
from datamodules.image_dataset import ImageDataset

DPI = 100
CHARACTERS_OF_A_NAME = 18
MAX_LABELS = 150  # of an axis: with more classes only some are labelled, to keep a figure below 25 MB in memory


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of this size in inches, without a window."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def to_png(figure: Figure) -> bytes:
    """Returns the figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": MARK})  # marks the file as replaceable by a later one
    return buffer.getvalue()


def short(name: str) -> str:
    """Shortens a name to fit beside an image.

    >>> short("a class with a very long name")
    'a class with a ve…'
    """
    return literal(name if len(name) <= CHARACTERS_OF_A_NAME else f"{name[: CHARACTERS_OF_A_NAME - 1]}…")


def literal(text: str) -> str:
    """Escapes text for matplotlib, for which a dollar begins a formula; bytes that are not UTF-8 have no glyph."""
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws the confusion matrix.

    Args:
        counts: Number of images by class (rows) and prediction (columns), ``(classes, classes)``.
        names: Class names.
    """
    side = max(5.0, _inches(names) + 2)
    figure = new_figure(side + 0.3, side - 0.6)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the class's images", shrink=0.5, pad=0.01, aspect=40)
    labels = [short(name) for name in names]
    _label(axes.xaxis, labels, rotation=90)
    _label(axes.yaxis, labels)
    axes.tick_params(length=0)
    axes.set_xlabel("prediction")
    axes.set_ylabel("class")
    return figure


def class_accuracy_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws the accuracy of each class, best first, and the mean over classes that have images.

    Args:
        counts: As for ``confusion_figure``.
        names: Class names.
    """
    totals = counts.sum(1)
    accuracies = np.diag(counts) / np.maximum(totals, 1)
    order = np.argsort(-accuracies, kind="stable")
    figure = new_figure(7, max(3.0, _inches(names) + 1))
    axes = figure.subplots()
    axes.barh(range(len(names)), accuracies[order], height=0.8)
    _label(axes.yaxis, [f"{short(names[i])} ({totals[i]})" for i in order])
    mean = accuracies[totals > 0].mean()
    axes.axvline(mean, color="black", linewidth=1, label=f"mean {mean:.3f}")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy of the class (images)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def _inches(names: Sequence[str]) -> float:
    """Returns the length of an axis that is labelled with classes."""
    return 0.13 * min(len(names), MAX_LABELS)


def _label(axis: Axis, labels: Sequence[str], **options: Any) -> None:
    every = -(-len(labels) // MAX_LABELS)
    axis.set_ticks(range(0, len(labels), every), labels[::every], fontsize=6 if len(labels) > 30 else 8, **options)


def images_figure(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4) -> Figure:
    """Draws images ``(height, width, 3)`` in rows, each below its title."""
    figure, panels = _panels(len(images), columns, width=2.1, height=2.5)
    for axes, image, title in zip(panels, images, titles, strict=True):
        axes.imshow(image)
        axes.set_title(title, fontsize=8)
        axes.axis("off")
    return figure


def _panels(count: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure with rows of panels of this size in inches, and the axes of the first ``count``."""
    rows = -(-count // columns)
    figure = new_figure(width * columns, height * rows)
    figure.subplots(rows, columns, squeeze=False)
    for unused in figure.axes[count:]:
        unused.axis("off")
    return figure, figure.axes[:count]


def worst_images_figure(dataset: ImageDataset, answers: Answers, names: Sequence[str], count: int = 16) -> Figure:
    """Draws the images whose class got the lowest probability, as the network saw them, with its predictions."""
    images, titles = [], []
    for row in answers.worst(count):
        images.append(dataset[int(answers.samples[row])].images.numpy())
        true, predicted = (short(names[int(x[row])]) for x in (answers.targets, answers.predicted))
        titles.append(
            f"{true}: p = {answers.probability[row]:.2g}\ntaken for {predicted}: {answers.confidence[row]:.2f}"
        )
    return images_figure(images, titles)


def sizes_figure(sizes: Mapping[str, int], limit: int) -> Figure:
    """Draws the sizes of a model's parts beside the budget.

    Args:
        sizes: Bytes of each part by name.
        limit: Budget in bytes.
    """
    figure = new_figure(8, 0.3 * len(sizes) + 1.6)
    axes = figure.subplots()
    total = sum(sizes.values())
    bars = {**sizes, "all": total}
    drawn = axes.barh(range(len(bars)), [size / 1e6 for size in bars.values()])
    axes.bar_label(drawn, [f"{size / 1e6:.2f}" for size in bars.values()], padding=3, fontsize=8)
    axes.axvline(limit / 1e6, color="tab:red", label=f"budget {limit / 1e6:.2f} MB")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(limit, total) / 1e6)
    axes.set_xlabel("MB of 10⁶ bytes, parameters and buffers")
    axes.legend(loc="lower right" if total < limit / 2 else "center right")
    return figure


def reliability_figure(images: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, error: float) -> Figure:
    """Draws accuracy against confidence.

    Args:
        images: Number of images in each bin of confidence, ``(bins,)``.
        confidence: Mean confidence of each bin, NaN if it is empty.
        accuracy: Accuracy of each bin, NaN if it is empty.
        error: Expected calibration error.
    """
    figure = new_figure(5, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    edges = np.linspace(0, 1, len(images) + 1)
    above.bar(edges[:-1], np.nan_to_num(accuracy), width=1 / len(images), align="edge", edgecolor="white", alpha=0.6)
    above.plot(confidence, accuracy, "o", color="black", markersize=4, label="a bin at its mean confidence")
    above.plot([0, 1], [0, 1], color="tab:red", linewidth=1, label="confidence = accuracy")
    above.set_ylabel("accuracy")
    above.set_ylim(0, 1)
    above.set_xlim(0, 1)
    above.set_title(f"expected calibration error {error:.3f}")
    above.legend(loc="upper left", fontsize="small")
    below.bar(edges[:-1], images, width=1 / len(images), align="edge", edgecolor="white", color="grey")
    below.set_ylabel("images")
    below.set_xlabel("confidence: probability of the predicted class")
    return figure


def coverage_figure(coverage: np.ndarray, accuracy: np.ndarray, overall: float) -> Figure:
    """Draws the accuracy of the most confident predictions against how many they are.

    Args:
        coverage: Shares of images that are kept, the most confident first, ``(images,)``.
        accuracy: Accuracy of the kept ones, ``(images,)``.
        overall: Accuracy of all images.
    """
    figure = new_figure(5, 3.5)
    axes = figure.subplots()
    axes.plot(coverage, accuracy, label="most confident predictions")
    axes.axhline(overall, color="tab:red", linewidth=1, label=f"all images {overall:.3f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(min(0.9 * overall, accuracy.min()), 1.01)
    axes.set_xlabel("coverage: share of images, most confident first")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize="small")
    return figure


def curves_figure(scalars: Mapping[str, Mapping[int, float]], panels: Mapping[str, Sequence[str]]) -> Figure:
    """Draws scalars against epochs, in two columns of panels.

    Args:
        scalars: Values by name and epoch, which counts from 0.
        panels: Names of the scalars in each panel by its title; names that were not logged are left out.
    """
    figure, grid = _panels(len(panels), columns=2, width=5, height=3)
    for axes, (title, names) in zip(grid, panels.items(), strict=True):
        for name in names:
            if values := scalars.get(name):
                epochs = sorted(values)
                axes.plot([e + 1 for e in epochs], [values[e] for e in epochs], marker=".", label=name)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    return figure
