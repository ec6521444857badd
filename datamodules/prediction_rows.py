"""The rows of ``prediction.csv``: which image each one names, and in which order."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_warn

from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.csv_cells import from_cells, to_cell, to_utf8
from datamodules.files.csv_tables import read_columns
from datamodules.files.errors import UserError, listed
from datamodules.images.find import ImageFile
from datamodules.images.location import shown
from datamodules.lookalike_names import as_seen, spelled_apart
from datamodules.name_spellings import Spellings, grouped, spellings_of
from datamodules.sources.data_set import DataSet, list_to_predict
from datamodules.split_names import advice

NAME_COLUMN = "image_name"

Rows = list[tuple[str, ImageFile]]  # what a row calls its image


class Prediction(NamedTuple):
    """What to predict: a name and an image for each row, and the class names as ``prediction.csv`` spells them."""

    names: list[str]
    labels: list[str]
    images: list[ImageFile]


def list_prediction(
    data: DataSet, classes: ClassIndex, predict_dir: str | None, template: str | None, *, say: Callable[[str], None]
) -> Prediction:
    """Lists the images of a prediction, with ``ImageFolderDataModule``'s arguments.

    ``say`` is called with a line on what was passed over, if anything was.

    Raises:
        UserError: There is nothing at ``predict_dir``, the classes of ``test`` are not the model's, image names are not
            unique, or the template does not match the images.
    """
    source = None if predict_dir else data.find_to_predict()
    found = list_to_predict(Path(predict_dir)) if predict_dir else source.images() if source else None
    if found is None:
        place = predict_dir or data.root / "test"
        way_out = "" if predict_dir else f"{advice(data.root / 'test')}, or "
        raise UserError(f"there is no file or folder at {place} to predict: {way_out}pass --data.predict_dir")
    where = source.where if source else predict_dir
    images = sorted([*found.images, *found.again], key=lambda image: natural_key(image.name))  # links have rows too
    folders = {as_seen(image.name.partition("/")[0]) for image in images if "/" in image.name}
    if source and not folders.isdisjoint(map(as_seen, classes.names)):
        classes.require_same(ClassIndex(source.class_names()), "the checkpoint", source.where)
    if remarks := found.passed_over(but_again=True):
        say(f"{where}: passed over {remarks}")
    if not images:
        rank_zero_warn(f"{where} holds no image: the prediction will have a header and no rows")
    default = data.root / "sample_submission.csv"
    if template or (not predict_dir and default.is_file()):
        rows = rows_from_template(Path(template or default), images)
        spell = to_utf8  # a grader compares the labels
    else:
        rows, spell = rows_from_files(images), to_cell
    return Prediction([name for name, _ in rows], [spell(name) for name in classes.names], [image for _, image in rows])


def rows_from_files(images: Sequence[ImageFile]) -> Rows:
    """Names each image by its name's stem, as ``to_cell`` spells it, in their order.

    Raises:
        UserError: Two files share a stem.

    Example:
        >>> [name for name, _ in rows_from_files([ImageFile("a/1.jpg", "test/a/1.jpg"), ImageFile("=2.jpg", "…")])]
        ['1', "'=2"]
    """
    rows = [(to_cell(spellings_of(image.name)[0]), image) for image in images]
    if shared := _several(grouped((name, shown(image.path)) for name, image in rows)):
        raise UserError(
            f"image names must be unique, but there are several images for {shared}: rename them, or pass a "
            "--data.template that names them with their folder and suffix"
        )
    return rows


def rows_from_template(template: Path, images: Sequence[ImageFile]) -> Rows:
    """Names each image as the template does, in the template's order.

    A template may name files with or without their suffix and their folder, in any of Unicode's forms, and as they are
    or as ``to_cell`` spells them.

    Raises:
        UserError: The template has no ``image_name`` column, names an image twice, names one that is not there or that
            may be several, or leaves one out.
    """
    way_out = "pass another --data.template"
    names = [name for (name,) in read_columns(template, [NAME_COLUMN], what="the template", way_out=way_out)]
    _require_unique(names, str(template))
    place = {image.path: image.name for image in images}
    by_path = {image.path: image for image in images}
    spellings = Spellings(place)
    cells = from_cells(names)
    read = cells if all(map(spellings.path, cells)) else names  # one way for the whole column
    paths = [(name, spellings.path(as_read)) for name, as_read in zip(names, read, strict=True)]
    _require_unique([place[path] for _, path in paths if path], f"{template}, with or without folder and suffix,")
    _require_complete(paths, place, spellings.paths, template)
    return [(name, by_path[path]) for name, path in paths]


def _several(groups: dict[str, list[str]]) -> str:
    """Lists the names that have several paths, with these."""
    return listed([f"{name} ({listed(paths, limit=3)})" for name, paths in groups.items() if len(paths) > 1])


def _require_complete(
    rows: list[tuple[str, str]], place: dict[str, str], meant: dict[str, list[str]], template: Path
) -> None:
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
