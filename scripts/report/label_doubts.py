"""Which labels models doubt: confident learning, on probabilities from models that did not train on the image.

Source: Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021,
section 3.1. Own lines, as ``cleanlab``, the authors' library, would bring pandas and scikit-learn with it.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Doubts:
    """What models think of labels; columns ``(images,)``.

    Attributes:
        doubted: Whether the label is likely to be wrong.
        suggested: Index of the most probable class other than the label.
        order: Positions of the images, from the label with the lowest probability to that with the highest.
    """

    doubted: np.ndarray
    suggested: np.ndarray
    order: np.ndarray


def doubt_labels(probability: np.ndarray, targets: np.ndarray) -> Doubts:
    """Finds the labels that are likely to be wrong, and ranks all by how likely that is.

    The threshold of a class is the mean of its probability over the images that it labels. A label is doubted if, of
    the classes whose threshold the image reaches, the most probable one is another. Differs from the paper, as cleanlab
    does, where the label is the most probable class of all: it is not doubted then.

    The ranking is by the probability of the label alone. With one label in twenty swapped at random it found more of
    them than the margin to the most probable other class, and than either with the doubted images first
    (``tests/integration/wrong_labels.py`` measures it).

    Example:
        >>> doubt_labels(np.array([[0.8, 0.2], [0.9, 0.1], [0.1, 0.9]]), np.array([0, 1, 1])).doubted.tolist()
        [False, True, False]

    Args:
        probability: Probabilities of the classes, ``(images, classes)``, each row from a model that did not train on
            the image.
        targets: Class indices of the labels, ``(images,)``.
    """
    images, classes = np.arange(len(targets)), probability.shape[1]
    of_label = probability[images, targets]
    counts = np.bincount(targets, minlength=classes)
    sums = np.bincount(targets, weights=of_label, minlength=classes)
    # A class without an image has no threshold that could be reached.
    thresholds = np.divide(sums, counts, out=np.full(classes, np.inf), where=counts > 0)
    reached = np.where(probability >= thresholds, probability, -1.0)
    most = reached.argmax(1)
    reaches_another = (most != targets) & (reached[images, most] >= 0)
    others = probability.copy()
    others[images, targets] = -1.0
    doubted = reaches_another & (others.max(1) > of_label)
    return Doubts(doubted, others.argmax(1), np.argsort(of_label, kind="stable"))
