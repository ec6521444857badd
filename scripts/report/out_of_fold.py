"""Reads probabilities from models that did not train on the image, as ``cbam100 ablate --folds`` writes them."""

import csv
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.class_index import ClassIndex
from datamodules.files.csv_cells import from_cell
from datamodules.files.errors import UserError, listed

OUT_OF_FOLD = "out_of_fold.csv"  # in the folder of an arm
COLUMNS = ["image_name", "label", "fold"]  # before p(<class>) of each class
LARGEST_DEVIATION = 1e-3  # of a sum from 1, which rounding to 16 bits or to 9 digits stays below
WAY_OUT = f"pass the {OUT_OF_FOLD} that cbam100 ablate --folds wrote"


@dataclass(frozen=True)
class OutOfFold:
    """The images of a file, in its order.

    Attributes:
        names: Their names, ``<class>/<name>``.
        targets: Class indices of their labels, ``(images,)``.
        probability: Probabilities of the classes, ``(images, classes)``; NaN for images that could not be read.
    """

    names: list[str]
    targets: np.ndarray
    probability: np.ndarray

    def readable(self) -> "OutOfFold":
        """Returns the images that have probabilities."""
        rows = np.flatnonzero(~np.isnan(self.probability[:, 0]))
        return OutOfFold([self.names[row] for row in rows], self.targets[rows], self.probability[rows])


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
    lines: list[int] = []
    numbers = array("d")  # lists of floats would take four times the memory
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            found = _classes_in(next(reader, []), path)
            classes.require_same(found, "the data set", str(path))
            for row in reader:
                where = f"line {reader.line_num} of {path}"
                if len(row) != (wanted := len(COLUMNS) + len(found)):
                    raise UserError(f"{where} must have {wanted} cells, as its first line, got {len(row)}: {WAY_OUT}")
                name, label, _, *cells = row
                names.append(from_cell(name))
                labels.append(from_cell(label))
                lines.append(reader.line_num)
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
    return OutOfFold(names, np.array([classes.position(label) for label in labels]), in_order)


def _classes_in(header: list[str], path: Path) -> ClassIndex:
    count = len(COLUMNS)
    cells = [from_cell(cell) for cell in header[count:]]
    if header[:count] != COLUMNS or not cells or not all(c.startswith("p(") and c.endswith(")") for c in cells):
        raise UserError(
            f"{path} is not a file of probabilities, as its first line is not {','.join(COLUMNS)} and p(CLASS) for "
            f"each class: {WAY_OUT}"
        )
    return ClassIndex(cell[2:-1] for cell in cells)


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
