"""The rows of ``prediction.csv``: which image each one names, and in which order."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_warn

from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.csv_cells import from_cell, to_cell, to_utf8
from datamodules.files.csv_columns import read_columns
from datamodules.files.errors import UserError, listed
from datamodules.images.find import find_images
from datamodules.lookalike_names import as_seen, spelled_apart
from datamodules.name_spellings import Spellings, grouped, spellings_of
from datamodules.split_names import advice, visible_folders

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
    folders = {as_seen(Path(folder).name) for folder in visible_folders(source)}
    if not predict_dir and not folders.isdisjoint(map(as_seen, classes.names)):
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
        rows = rows_from_template(Path(template or default), paths, source)
        spell = to_utf8  # a grader compares the labels
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
    rows = [(to_cell(Path(path).stem), path) for path in paths]
    if shared := _several(grouped(rows)):
        raise UserError(
            f"image names must be unique, but there are several images for {shared}: rename them, or pass a "
            "--data.template that names them with their folder and suffix"
        )
    return rows


def rows_from_template(template: Path, paths: Sequence[str], folder: Path) -> Rows:
    """Names each image as the template does, in the template's order.

    A template may name files with or without their suffix and their place below ``folder``, in any of Unicode's forms,
    and as they are or as ``to_cell`` spells them.

    Raises:
        UserError: The template has no ``image_name`` column, names an image twice, names one that is not there or that
            may be several, or leaves one out.
    """
    way_out = "pass another --data.template"
    names = [name for (name,) in read_columns(template, [NAME_COLUMN], what="the template", way_out=way_out)]
    _require_unique(names, str(template))
    place = {path: path.removeprefix(f"{folder}{os.sep}").replace(os.sep, "/") for path in paths}
    spellings = Spellings(place)
    cells = [from_cell(name) for name in names]
    read = cells if all(map(spellings.path, cells)) else names  # one way for the whole column
    rows = [(name, spellings.path(as_read)) for name, as_read in zip(names, read, strict=True)]
    _require_unique([place[path] for _, path in rows if path], f"{template}, with or without folder and suffix,")
    _require_complete(rows, place, spellings.paths, template)
    return rows


def _several(groups: dict[str, list[str]]) -> str:
    """Lists the names that have several paths, with these."""
    return listed([f"{name} ({listed(paths, limit=3)})" for name, paths in groups.items() if len(paths) > 1])


def _require_complete(rows: Rows, place: dict[str, str], meant: dict[str, list[str]], template: Path) -> None:
    """Checks that each row has a path and each path a row."""
    absent = [name for name, path in rows if not path]
    unclear = {name: meant[name] for name in absent if name in meant}
    named = {path for _, path in rows}.union(*unclear.values())
    unnamed = [where for path, where in place.items() if path not in named]
    by_look = {as_seen(spelling): spelling for where in unnamed for spelling in spellings_of(where)}
    respelled = {by_look[as_seen(name)]: name for name in absent if by_look.get(as_seen(name), name) != name}
    absent = [name for name in absent if name not in respelled.values() and name not in unclear]
    unnamed = [where for where in unnamed if respelled.keys().isdisjoint(spellings_of(where))]
    faults = [f"spells {spelled_apart(respelled)}"] if respelled else []
    faults += [f"names {_several(unclear)}, for which there are several images"] if unclear else []
    faults += [f"names {listed(absent)}, for which there is no image"] if absent else []
    faults += [f"does not name {listed(unnamed)}"] if unnamed else []
    if faults:
        raise UserError(
            f"{template} must name each of the {len(place)} images once, but it {' and '.join(faults)}: correct it, or "
            "pass another --data.template or --data.predict_dir"
        )


def _require_unique(names: list[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"image names must be unique, but {where} has {listed(twice)} more than once: rename them")
