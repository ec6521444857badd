"""``cbam100 compare``: tells where two predictions of the same images differ, and which of them is right."""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from callbacks.run.manifest import write_json
from datamodules.archives.series import is_archive
from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.atomic_file import require_writable
from datamodules.files.csv_cells import from_cell
from datamodules.files.csv_tables import read_columns
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import COMPARISON, require_replaceable
from datamodules.images.find import SUFFIXES
from datamodules.lookalike_names import as_seen, spelled_apart
from datamodules.name_spellings import Spellings
from datamodules.prediction_rows import NAME_COLUMN
from datamodules.sources.archived import Archived
from datamodules.sources.class_folders import ClassFolders
from datamodules.sources.source import Source
from datamodules.split_names import require_outside_splits
from datamodules.splits import list_split
from lightning_modules.metrics.proportions import mcnemar_p_value
from scripts.arguments import Arguments
from scripts.console import printable

SHOWN = 20
LABEL_COLUMN = "pred_label"
TRUTH_COLUMNS = ("label", LABEL_COLUMN)
TRUE_NAME_COLUMNS = (NAME_COLUMN, "file_name")  # the latter in the labels that audit writes

Labels = dict[str, str]  # by image name, both as folders spell them


@dataclass(frozen=True)
class Correctness:
    """How two predictions agree with the truth.

    Attributes:
        accuracy_a: Fraction of the images that A classifies correctly.
        accuracy_b: The same of B.
        only_a: Number of images that only A classifies correctly.
        only_b: Number of images that only B classifies correctly.
        p_value: Of McNemar's exact test, two-sided.
        never_predicted: Classes of the truth that neither predicts for any image.
    """

    accuracy_a: float
    accuracy_b: float
    only_a: int
    only_b: int
    p_value: float
    never_predicted: list[str]


@dataclass(frozen=True)
class Comparison:
    """How two predictions of the same images differ.

    Attributes:
        images: Number of images.
        agreement: Fraction of the images to which both give the same class.
        moved: Pairs of classes, ``a``, ``b`` and the number of ``images`` that moved, most frequent first.
        differing: Rows that differ, in A's order: ``image_name``, ``a``, ``b`` and, if it is known, ``truth``.
        correctness: Comparison with the truth, None if it was not given.
    """

    images: int
    agreement: float
    moved: list[dict[str, str | int]]
    differing: list[dict[str, str]]
    correctness: Correctness | None = None


def compare(
    a: str | Path, b: str | Path, *, truth: str | Path | None = None, json: str | Path | None = None
) -> Comparison:
    """Compares two predictions of the same images, which may be in any order.

    Example:
        >>> compare("checkpoint.csv", "int8.csv", truth="photos/val").agreement  # doctest: +SKIP
        0.9952

    Args:
        a: A prediction, as predict writes it.
        b: The other one.
        truth: The correct classes: a folder, or an archive, with a folder of images for each class, such as ROOT/val,
            or a CSV file with the columns image_name (or file_name) and label (or pred_label, as in a prediction).
        json: JSON file for the whole comparison, with every row that differs.

    Raises:
        UserError: A file cannot be read, names an image twice, or they do not name the same images.
    """
    if json:
        json = Path(json)
        require_writable(json.parent, "--json")
        require_outside_splits(json.parent, "--json")
        require_replaceable(json, COMPARISON, "--json", map(Path, (a, b, *([truth] if truth else []))))
    answers_a = _read_table(Path(a), [LABEL_COLUMN])
    answers_b = _in_order_of(answers_a, _read_table(Path(b), [LABEL_COLUMN]), str(a), str(b))
    _require_spelled_alike(answers_a.values(), answers_b, str(a), str(b))
    correct: list[str] | None = None
    if truth:
        path = Path(truth)
        source = Archived([path]) if is_archive(path) else ClassFolders(path) if path.is_dir() else None
        known = _read_source(source) if source else _read_table(path, TRUTH_COLUMNS, TRUE_NAME_COLUMNS)
        correct = _in_order_of(answers_a, known, str(a), str(truth))
        _require_spelled_alike([*answers_a.values(), *answers_b], correct, f"{a} and {b}", str(truth))
    comparison = _compared(list(answers_a), list(answers_a.values()), answers_b, correct)
    if json:
        write_json(json, {"a": str(a), "b": str(b), "truth": truth and str(truth)} | dataclasses.asdict(comparison))
    return comparison


def main(words: list[str]) -> None:
    """Runs ``cbam100 compare`` and prints what it found."""
    parser = Arguments(prog="cbam100 compare")
    metavars = {"a": "A.csv", "b": "B.csv", "truth": "FILE_OR_DIR", "json": "FILE"}
    parser.add_parameters(compare, spelled={"a": "a", "b": "b"}, metavars=metavars)
    options = parser.parse_args(words)
    _print(compare(**vars(options)), str(options.a), str(options.b))


def _read_table(path: Path, label_columns: Collection[str], name_columns: Collection[str] = (NAME_COLUMN,)) -> Labels:
    """Reads a table of predictions or of the truth.

    Raises:
        UserError: The file cannot be read, has no rows, or names an image twice.
    """
    rows = read_columns(path, [name_columns, label_columns], what="the table", way_out="pass another file")
    if not rows:
        raise UserError(f"{path} has no rows, so there is nothing to compare: pass another file")
    counts = Counter(from_cell(name) for name, _ in rows)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"image names must be unique, but {path} has {listed(twice)} more than once: remove the rows")
    return {from_cell(name): from_cell(label) for name, label in rows}


def _read_source(source: Source) -> Labels:
    """Takes the class of each image from its folder, on a disk or in an archive.

    Raises:
        UserError: As ``list_split`` tells.
    """
    files, _ = list_split(source, ClassIndex(source.class_names()))
    return {image.name: name for name, images in files.items() for image in images}


def _in_order_of(names: Collection[str], labels: Labels, names_from: str, labels_from: str) -> list[str]:
    """Returns the labels in the order of ``names``; either may name images more fully, with folder and suffix.

    Raises:
        UserError: They do not name the same images.
    """
    if labels.keys() == {*names}:  # at a tenth of the time
        return [labels[name] for name in names]
    fuller = Spellings({name: _with_suffix(name) for name in labels})
    found = [fuller.path(name) for name in names]
    if not all(found):
        shorter = Spellings({name: _with_suffix(name) for name in names})
        by_name = {shorter.path(name): name for name in labels}
        found = max(found, [by_name.get(name, "") for name in names], key=lambda places: sum(map(bool, places)))
    missing = [name for name, place in zip(names, found, strict=True) if not place]
    also = sorted(labels.keys() - set(found), key=natural_key)
    _require_spelled_alike(missing, also, names_from, labels_from)
    faults = [f"lacks {listed(missing)}"] if missing else []
    faults += [f"also has {listed(also)}"] if also else []
    if twice := [place for place, count in Counter(found).items() if place and count > 1]:
        faults.append(f"has one row for what {names_from} names more than once, {listed(twice)}")
    if faults:
        raise UserError(
            f"{labels_from} must name the {len(names):,} images of {names_from}, but it {' and '.join(faults)}: "
            "correct a file, or predict the same images again"
        )
    return [labels[place] for place in found]


def _with_suffix(name: str) -> str:
    """Returns a file's name for the name in a row, so that what follows a dot in a stem is no suffix."""
    return name if name.lower().endswith(SUFFIXES) else name + SUFFIXES[0]


def _require_spelled_alike(expected: Iterable[str], came: Iterable[str], expected_from: str, came_from: str) -> None:
    """Checks that no name counts as another because of blanks or characters that do not show.

    Raises:
        UserError: A name that only one of the two has looks like one of the other's.
    """
    known, others = {*expected}, {*came}
    looks, other_looks = ({as_seen(name): name for name in names} for names in (known, others))
    respelled = {name: other_looks[as_seen(name)] for name in sorted(known - others) if as_seen(name) in other_looks}
    respelled |= {looks[as_seen(name)]: name for name in sorted(others - known) if as_seen(name) in looks}
    if respelled:
        raise UserError(
            f"{came_from} must spell names as {expected_from} does, but it spells {spelled_apart(respelled)}: correct "
            "one of them"
        )


def _compared(names: list[str], a: list[str], b: list[str], truth: list[str] | None) -> Comparison:
    columns = {"image_name": names, "a": a, "b": b} | ({"truth": truth} if truth else {})
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    differing = [row for row in rows if row["a"] != row["b"]]
    pairs = Counter((row["a"], row["b"]) for row in differing)
    by_count = sorted(pairs.items(), key=lambda pair: (-pair[1], *map(natural_key, pair[0])))
    moved: list[dict[str, str | int]] = [{"a": one, "b": two, "images": count} for (one, two), count in by_count]
    agreement = 1 - len(differing) / len(names)
    return Comparison(len(names), agreement, moved, differing, _correctness(a, b, truth) if truth else None)


def _correctness(a: list[str], b: list[str], truth: list[str]) -> Correctness:
    right = Counter((one == label, two == label) for one, two, label in zip(a, b, truth, strict=True))
    both, only_a, only_b = right[True, True], right[True, False], right[False, True]
    never = sorted({*truth} - {*a, *b}, key=natural_key)
    accuracy_a, accuracy_b = (both + only_a) / len(truth), (both + only_b) / len(truth)
    return Correctness(accuracy_a, accuracy_b, only_a, only_b, mcnemar_p_value(only_a, only_b), never)


def _print(found: Comparison, a: str, b: str) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(f"A: {printable(a)}\nB: {printable(b)}")
    console.print(f"{len(found.differing):,} of {found.images:,} images differ: agreement {found.agreement:.4f}")
    if right := found.correctness:
        console.print(f"accuracy: A {right.accuracy_a:.4f}, B {right.accuracy_b:.4f}")
        console.print(
            f"only A is right for {right.only_a:,} images, only B for {right.only_b:,}: McNemar's exact test, "
            f"p = {right.p_value:.3g}"
        )
        if never := list(map(printable, right.never_predicted)):
            console.print(f"classes that neither predicts: {listed(never, SHOWN)}")
    if not found.differing:
        return
    moved = Table("class of A", "class of B", "images")
    for pair in found.moved[:SHOWN]:
        moved.add_row(printable(str(pair["a"])), printable(str(pair["b"])), f"{pair['images']:,}")
    differing = Table("image", "A", "B", *(["truth"] if found.correctness else []))
    for row in found.differing[:SHOWN]:
        differing.add_row(*map(printable, row.values()))
    for table, rows in ((moved, found.moved), (differing, found.differing)):
        console.print(table)
        if len(rows) > SHOWN:
            console.print(f"{len(rows) - SHOWN:,} more, all of them with --json FILE")
