"""The rows of ``prediction.csv``: which image each one names, and in which order."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datamodules.class_index import as_seen, spelled_apart
from datamodules.files.csv_cells import from_cell, to_cell
from datamodules.files.errors import UserError, listed

NAME_COLUMN = "image_name"


def rows_from_files(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (image name, path) in the order of ``paths``; a name is the file's stem, as ``to_cell`` spells it.

    Raises:
        UserError: Two files share a stem.
    """
    names = [to_cell(Path(path).stem) for path in paths]
    _require_unique(names, f"the images of {Path(paths[0]).parent}" if paths else "")
    return list(zip(names, paths, strict=True))


def rows_from_template(template: Path, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (image name as the template spells it, path) in the template's order.

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
                    f"expected {template} to have a column {NAME_COLUMN}, its columns are "
                    f"{', '.join(reader.fieldnames or ['none'])}: rename one or pass another --data.template"
                )
            names = [row[NAME_COLUMN] or "" for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"expected a CSV file at {template}, it cannot be read ({error}): pass another --data.template"
        ) from error
    _require_unique(names, str(template))
    stems = Counter(Path(path).stem for path in paths)
    by_name = {Path(path).stem: path for path in paths if stems[Path(path).stem] == 1}
    by_name |= {Path(path).name: path for path in paths}
    cells = [from_cell(name) for name in names]
    read = cells if all(cell in by_name for cell in cells) else names  # one way for the whole column
    rows = [(name, by_name.get(as_read, "")) for name, as_read in zip(names, read, strict=True)]
    _require_unique([Path(path).name for _, path in rows if path], f"{template}, with or without suffix")
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
            f"expected {template} to name each of the {len(paths)} images once, it {' and '.join(faults)}: "
            "correct it, or pass another --data.template or --data.predict_dir"
        )
    return rows


def _require_unique(names: list[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"expected each image name once in {where}, found {listed(twice)} more than once: rename them")
