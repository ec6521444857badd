"""The files of a prediction: the CSV and its zip, and on request the top classes and all probabilities."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.files.atomic_file import atomic_file
from datamodules.files.csv_tables import write_csv
from datamodules.files.own_files import PREDICTION, PROBABILITIES, TOP_K, kind_of, zip_of
from datamodules.prediction_rows import NAME_COLUMN

HEADER = [NAME_COLUMN, "pred_label"]


@dataclass
class Predictions:
    """Predictions for all images; names and classes are spelled as in the files.

    Attributes:
        names: Image names ``(images,)``.
        classes: Class names, in the order of the network's outputs.
        label: Class indices ``(images,)``.
        readable: Booleans ``(images,)``; False where the image could not be read and ``label`` is the fallback.
        top_label: Class indices ``(images, k)``, most probable first, or None.
        top_probability: Probabilities of ``top_label`` ``(images, k)``, or None.
        review: Booleans ``(images,)``, a column beside the top classes; True where a person is to look; or None.
        probability: All probabilities ``(images, classes)``, or None.
    """

    names: list[str]
    classes: list[str]
    label: np.ndarray
    readable: np.ndarray
    top_label: np.ndarray | None = None
    top_probability: np.ndarray | None = None
    review: np.ndarray | None = None
    probability: np.ndarray | None = None


def partial_path(path: Path) -> Path:
    """Returns where the rows of readable images are written when other images cannot be read."""
    return path.with_name(f"{path.name}.partial")


def top_k_path(path: Path) -> Path:
    """Returns where the top classes are written, beside the table ``path``."""
    return path.with_name(f"{path.stem}_topk.csv")


def _probabilities_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}_probabilities.npz")


def kinds(path: Path, top_k: int, probabilities: bool) -> dict[Path, str]:
    """Returns all files that may be written for the table ``path``, with the kind of each."""
    files = {path: PREDICTION, path.with_suffix(".zip"): zip_of(path.name), partial_path(path): PREDICTION}
    files |= {top_k_path(path): TOP_K} if top_k else {}
    return files | ({_probabilities_path(path): PROBABILITIES} if probabilities else {})


def write_partial(path: Path, predictions: Predictions) -> None:
    """Writes the rows of readable images to ``partial_path``."""
    rows = (
        (name, predictions.classes[label])
        for name, label, readable in zip(predictions.names, predictions.label, predictions.readable, strict=True)
        if readable
    )
    with atomic_file(partial_path(path)) as temporary:
        write_csv(temporary, HEADER, rows)


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes ``path``, its zip, and files for the optional columns, which are empty for unreadable images."""
    names, classes = predictions.names, predictions.classes
    if predictions.probability is not None:
        probability = np.where(predictions.readable[:, None], predictions.probability, np.float32("nan"))
        with atomic_file(_probabilities_path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file, image_name=np.array(names, str), class_name=np.array(classes, str), probability=probability
            )
    if predictions.top_label is not None and predictions.top_probability is not None:
        _write_top_k(top_k_path(path), predictions, predictions.top_label, predictions.top_probability)
    labels = (classes[position] for position in predictions.label)
    # Both files get their final names, or neither does.
    with atomic_file(path) as csv_file, atomic_file(path.with_suffix(".zip")) as zip_file:
        write_csv(csv_file, HEADER, zip(names, labels, strict=True))
        _write_zip(zip_file, path.name, csv_file.read_bytes())
    if kind_of(partial_path(path)) == PREDICTION:  # of an earlier attempt
        partial_path(path).unlink()


def _write_top_k(path: Path, predictions: Predictions, top_label: np.ndarray, top_probability: np.ndarray) -> None:
    names, classes, k = predictions.names, predictions.classes, top_label.shape[1]
    ranks = range(1, k + 1)
    header = [NAME_COLUMN, *(f"label_{rank}" for rank in ranks), *(f"probability_{rank}" for rank in ranks)]
    rows = (
        [name, *(classes[i] for i in labels), *map(str, values)] if readable else [name, *[""] * (2 * k)]
        for name, readable, labels, values in zip(names, predictions.readable, top_label, top_probability, strict=True)
    )
    if predictions.review is not None:
        header.append("review")
        rows = ([*row, str(int(review))] for row, review in zip(rows, predictions.review, strict=True))
    with atomic_file(path) as temporary:
        write_csv(temporary, header, rows)


def _write_zip(path: Path, name: str, content: bytes) -> None:
    """Writes a zip of one file, and checks what a reader will get."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # dated 1980: always equal bytes
    with zipfile.ZipFile(path) as archive:
        if archive.read(name) != content:
            raise OSError(f"the zip does not hold {name} as it was written")
