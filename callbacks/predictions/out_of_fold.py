"""The file of out-of-fold probabilities: for each image, the answer of a model that did not train on it."""

import csv
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.class_index import ClassIndex
from datamodules.files.atomic_file import atomic_file
from datamodules.files.csv_cells import from_cell, to_cell
from datamodules.files.csv_tables import csv_rows, write_csv
from datamodules.files.errors import UserError, listed
from datamodules.prediction_rows import NAME_COLUMN

OUT_OF_FOLD_TABLE = "out_of_fold.csv"  # in the folder of an arm
COLUMNS = [NAME_COLUMN, "label", "fold"]  # before p(<class>) of each class
LARGEST_DEVIATION = 1e-3  # of a sum from 1, which rounding to 16 bits or to 9 digits stays below
WAY_OUT = f"pass the {OUT_OF_FOLD_TABLE} that cbam100 ablate --folds wrote"


@dataclass(frozen=True)
class OutOfFold:
    """Rows ``(images,)``, as ``ablate`` collects them in the order of classes and then of names.

    Attributes:
        names: Names of the images, ``<class>/<name>``.
        classes: Class names, in the order of the probabilities.
        label: Class indices.
        fold: The fold that each image is in, whose run did not train on it.
        probability: What that run's best weights answer, ``(images, classes)``; NaN if it cannot be read.
    """

    names: list[str]
    classes: Sequence[str]
    label: np.ndarray
    fold: np.ndarray
    probability: np.ndarray

    def readable(self) -> "OutOfFold":
        """Returns the rows of the images that could be read."""
        rows = np.flatnonzero(~np.isnan(self.probability[:, 0]))
        names = [self.names[row] for row in rows]
        return OutOfFold(names, self.classes, self.label[rows], self.fold[rows], self.probability[rows])

    @property
    def right(self) -> np.ndarray:
        """Whether the most probable class is the label, ``(images,)``; of images that could be read."""
        return self.probability.argmax(1) == self.label


def write_out_of_fold(path: Path, answers: OutOfFold) -> None:
    """Writes one row per image: its name, label and fold, and the probability of each class."""
    classes = [to_cell(name) for name in answers.classes]
    header = [*COLUMNS, *(to_cell(f"p({name})") for name in answers.classes)]
    rows = (
        [to_cell(name), classes[label], str(fold), *("" if np.isnan(p) else f"{p:.9g}" for p in probability)]
        for name, label, fold, probability in zip(
            answers.names, answers.label, answers.fold, answers.probability, strict=True
        )
    )
    with atomic_file(path) as temporary:
        write_csv(temporary, header, rows)


def read_out_of_fold(path: Path, classes: ClassIndex) -> OutOfFold:
    """Reads a whole file.

    Args:
        path: The file.
        classes: The classes of the data set, in the order that the columns of ``probability`` get.

    Raises:
        UserError: It is another file, has other classes or an image twice, or its numbers are not probabilities.
    """
    names: list[str] = []
    labels: list[str] = []
    folds: list[int] = []
    lines: list[int] = []
    numbers = array("d")  # lists of floats would take four times the memory
    try:
        table = csv_rows(path)
        _, header = next(table, (0, []))
        found = _classes_in(header, path)
        classes.require_same(found, "the data set", str(path))
        wanted = len(COLUMNS) + len(found)
        for line, row in table:
            if not any(row):  # spreadsheets add empty rows at the end
                continue
            where = f"line {line} of {path}"
            if len(row) != wanted:
                raise UserError(f"{where} must have {wanted} cells, as its first line, got {len(row)}: {WAY_OUT}")
            name, label, fold, *cells = row
            names.append(from_cell(name))
            labels.append(from_cell(label))
            if not fold.isdecimal():
                raise UserError(f"{where} must have the number of a fold, got {fold!r}: {WAY_OUT}")
            folds.append(int(fold))
            lines.append(line)
            numbers.extend(_numbers(cells, where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}): {WAY_OUT}") from error
    if not names:
        raise UserError(f"{path} has no images: {WAY_OUT}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} must name each image once, but has {listed(twice)} more than once: {WAY_OUT}")
    if unknown := sorted({*labels} - {*classes.names}):
        raise UserError(f"{path} has labels that are none of its classes, {listed(unknown)}: {WAY_OUT}")
    probability = np.frombuffer(numbers).reshape(len(names), len(found))
    _require_probabilities(probability, lines, path)
    in_order = probability[:, [found.position(name) for name in classes.names]]
    label_positions = np.array([classes.position(label) for label in labels])
    return OutOfFold(names, classes.names, label_positions, np.array(folds), in_order)


def _classes_in(header: list[str], path: Path) -> ClassIndex:
    count = len(COLUMNS)
    cells = [from_cell(cell) for cell in header[count:]]
    if header[:count] != COLUMNS or not cells or not all(c.startswith("p(") and c.endswith(")") for c in cells):
        raise UserError(
            f"{path} is not a file of probabilities, as its first line is not {','.join(COLUMNS)} and p(CLASS) for "
            f"each class: {WAY_OUT}"
        )
    names = [cell[2:-1] for cell in cells]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} has several columns of {listed(twice)}: {WAY_OUT}")
    return ClassIndex(names)


def _numbers(cells: list[str], where: str) -> list[float]:
    if not any(cells):
        return [np.nan] * len(cells)
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError as error:
        raise UserError(f"{where} has a probability that is not a number ({error}): {WAY_OUT}") from error
    return [np.inf if number != number else number for number in numbers]  # NaN stands for an empty cell


def _require_probabilities(probability: np.ndarray, lines: list[int], path: Path) -> None:
    empty = np.isnan(probability).all(1)
    with np.errstate(invalid="ignore"):  # of infinite ones
        sums = probability.sum(1)
    wrong = ~empty & ~((probability >= 0).all(1) & (np.abs(sums - 1) <= LARGEST_DEVIATION))
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(
            f"probabilities must be at least 0 and add up to 1, but those in line {lines[first]} of {path} are from "
            f"{probability[first].min():g} to {probability[first].max():g} and add up to {sums[first]:g}: {WAY_OUT}"
        )
