"""The rows of ``prediction.csv``: which image each one names, and in which order."""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_warn

from datamodules.class_index import ClassIndex, as_seen, natural_key, spelled_apart
from datamodules.files.csv_cells import from_cell, to_cell, to_utf8
from datamodules.files.errors import UserError, listed
from datamodules.images.find import find_images
from datamodules.split_names import advice

NAME_COLUMN = "image_name"

Rows = list[tuple[str, str]]  # image name and path


class Prediction(NamedTuple):
    """What to predict: a name and a path for each row, and the class names as ``prediction.csv`` spells them."""

    names: list[str]
    labels: list[str]
    paths: list[str]


def list_prediction(
    root: Path, classes: ClassIndex, predict_dir: str | None, template: str | None, *, say: Callable[[str], None]
) -> Prediction:
    """Lists the images of a prediction, with ``ImageFolderDataModule``'s arguments.

    ``say`` is called with a line on what was passed over, if anything was.

    Raises:
        UserError: There is nothing at ``predict_dir``, the classes of ``ROOT/test`` are not the model's, image names
            are not unique, or the template does not match the images.
    """
    source = Path(predict_dir) if predict_dir else root / "test"
    if not source.exists():
        way_out = "" if predict_dir else f"{advice(source)}, or "
        raise UserError(f"there is no file or folder at {source} to predict: {way_out}pass --data.predict_dir")
    if not predict_dir and any((source / name).is_dir() for name in classes.names):
        classes.require_same(ClassIndex.from_folder(source), "the checkpoint", str(source))
    paths = [str(source)]
    if source.is_dir():
        found = find_images(source)
        paths = sorted([*found.paths, *found.again], key=natural_key)  # a row for each name, links' too
        if remarks := found.passed_over(but_again=True):
            say(f"{source}: passed over {remarks}")
    if not paths:
        rank_zero_warn(f"{source} holds no image: the prediction will have a header and no rows")
    default = root / "sample_submission.csv"
    if template or (not predict_dir and default.is_file()):
        rows, spell = rows_from_template(Path(template or default), paths), to_utf8  # a grader compares the labels
    else:
        rows, spell = rows_from_files(paths), to_cell
    return Prediction([name for name, _ in rows], [spell(name) for name in classes.names], [path for _, path in rows])


def rows_from_files(paths: Sequence[str]) -> Rows:
    """Names each image by its file's stem, as ``to_cell`` spells it, in the order of ``paths``.

    Raises:
        UserError: Two files share a stem.

    Example:
        >>> rows_from_files(["test/1.jpg", "test/=2.jpg"])
        [('1', 'test/1.jpg'), ("'=2", 'test/=2.jpg')]
    """
    names = [to_cell(Path(path).stem) for path in paths]
    _require_unique(names, f"the images of {Path(paths[0]).parent}" if paths else "")
    return list(zip(names, paths, strict=True))


def rows_from_template(template: Path, paths: Sequence[str]) -> Rows:
    """Names each image as the template does, in the template's order.

    A template may name files with or without their suffix, and as they are or as ``to_cell`` spells them.

    Raises:
        UserError: The template has no ``image_name`` column, names an image twice, names one that is not there, or
            leaves one out.
    """
    try:
        with open(template, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if NAME_COLUMN not in (reader.fieldnames or []):
                raise UserError(
                    f"{template} has no column {NAME_COLUMN}, only {', '.join(reader.fieldnames or ['an empty line'])}:"
                    " rename a column or pass another --data.template"
                )
            names = [row[NAME_COLUMN] or "" for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the template {template} ({error}): pass another --data.template") from error
    _require_unique(names, str(template))
    stems = Counter(Path(path).stem for path in paths)
    by_name = {Path(path).stem: path for path in paths if stems[Path(path).stem] == 1}
    by_name |= {Path(path).name: path for path in paths}
    cells = [from_cell(name) for name in names]
    read = cells if all(cell in by_name for cell in cells) else names  # one way for the whole column
    rows = [(name, by_name.get(as_read, "")) for name, as_read in zip(names, read, strict=True)]
    _require_unique([Path(path).name for _, path in rows if path], f"{template}, with or without suffix")
    _require_complete(rows, paths, template)
    return rows


def _require_complete(rows: Rows, paths: Sequence[str], template: Path) -> None:
    """Checks that each row has a path and each path a row."""
    absent = [name for name, path in rows if not path]
    named = {path for _, path in rows}
    unnamed = [Path(path).name for path in paths if path not in named]
    by_look = {as_seen(spelling): spelling for name in unnamed for spelling in (name, Path(name).stem)}
    respelled = {by_look[as_seen(name)]: name for name in absent if by_look.get(as_seen(name), name) != name}
    absent = [name for name in absent if name not in respelled.values()]
    unnamed = [name for name in unnamed if not {name, Path(name).stem} & respelled.keys()]
    faults = [f"spells {spelled_apart(respelled)}"] if respelled else []
    faults += [f"names {listed(absent)}, for which there is no image"] if absent else []
    faults += [f"does not name {listed(unnamed)}"] if unnamed else []
    if faults:
        raise UserError(
            f"{template} must name each of the {len(paths)} images once, but it {' and '.join(faults)}: correct it, or "
            "pass another --data.template or --data.predict_dir"
        )


def _require_unique(names: list[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"image names must be unique, but {where} has {listed(twice)} more than once: rename them")
