"""``cbam100 audit``: reports what a data set holds and what would stop a run, before the run."""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from callbacks.run.manifest import write_json
from datamodules.class_index import natural_key
from datamodules.data_audit import Findings, ImageFacts, audit_data
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import AUDIT, require_replaceable
from datamodules.images.read import MAX_PIXELS
from datamodules.lookalike_names import as_seen, look_alike
from datamodules.sources.data_set import DataSet
from datamodules.sources.write_labels import require_new_labels_file, write_labels
from datamodules.split_names import require_outside_splits, require_root
from datamodules.workers.loader import default_num_workers
from scripts.arguments import Arguments
from scripts.console import printable

NOTABLE_IMBALANCE = 10.0
SHOWN = 20


def audit(
    root: str | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    num_workers: int | None = None,
    labels: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_list: str | None = None,
    labels_output: str | Path | None = None,
    json: str | Path | None = None,
) -> Findings:
    """Reads every file of a data set and reports what it holds and what would stop a run; changes no file.

    Example:
        >>> audit("photos").stops  # doctest: +SKIP
        ['unreadable images: 1, see --data.on_bad_image']

    Args:
        root: Folder that holds train, val and test, or the images of a labels file.
        max_pixels: Size limit of a decoded image: width times height, in pixels.
        num_workers: Number of decoding processes; by default the number of CPUs, at most 16.
        labels: CSV, TSV or JSONL file of labels, as for fit.
        image_column: Column of the labels file with the images, as for fit.
        label_column: Column of the labels file with the classes, as for fit.
        split_column: Column of the labels file with train, val or test, as for fit.
        class_list: File with the name of a class in each line, as for fit.
        labels_output: CSV file for the place, label and split of each labelled image, which --data.labels reads back as
            the same data set.
        json: JSON file for all findings, with every path.

    Raises:
        UserError: An argument is wrong, or the file cannot be written.
    """
    root = Path(root)
    if num_workers is None:
        num_workers = default_num_workers(1)
    if num_workers < 0:
        raise UserError(f"--data.num_workers must be at least 0, got {num_workers}: 0 reads in this process")
    if json:
        json = Path(json)
        require_writable(json.parent, "--json")
        require_outside_splits(json.parent, "--json", root)
        require_replaceable(json, AUDIT, "--json")
    require_root(root)
    options = {
        "labels": labels,
        "image_column": image_column,
        "label_column": label_column,
        "split_column": split_column,
        "class_list": class_list,
    }
    if labels_output:
        data = DataSet(root, options)
        require_new_labels_file(Path(labels_output), "--labels", data)
        write_labels(Path(labels_output), data)  # first, as it needs no image to be decoded
    findings = audit_data(root, options, max_pixels=max_pixels, num_workers=num_workers, progress=_progress)
    findings = replace(findings, warnings=_warnings(findings))
    if json:
        write_json(json, vars(findings))
    return findings


def main(words: list[str]) -> int:
    """Runs ``cbam100 audit`` and prints what it found; returns 1 if something would stop a run, 0 otherwise."""
    parser = Arguments(prog="cbam100 audit")
    of_data = inspect.signature(audit).parameters.keys() - {"labels_output", "json"}
    spelled = {name: f"--data.{name}" for name in of_data} | {"labels_output": "--labels"}
    parser.add_parameters(audit, spelled=spelled)
    findings = audit(**vars(parser.parse_args(words)))
    _print(findings)
    return 1 if findings.stops else 0


def _progress(facts: Iterator[ImageFacts], total: int) -> Iterable[ImageFacts]:
    console = Console(stderr=True)
    return track(facts, "reading", total=total, console=console, transient=True, disable=not console.is_terminal)


def _warnings(found: Findings) -> list[str]:
    """Says what would not stop a run but may be a mistake."""
    warnings = []
    across = [group for group in found.duplicates if len(group["splits"]) > 1]
    torn = [group for group in found.duplicates if len(group["classes"]) > 1]
    if across:
        warnings.append(f"pictures in more than one split, which inflates the measured accuracy: {len(across)}")
    if torn:
        warnings.append(f"pictures in more than one class: {len(torn)}")
    if within := len(found.duplicates) - len(across):
        warnings.append(f"pictures more than once in one split: {within}")
    if found.held_out:
        warnings.append(found.held_out)
    for name, split in found.splits.items():
        warnings += [f"{name}: classes that look alike: {listed(group)}" for group in look_alike(split["classes"])]
        if split["imbalance"] and split["imbalance"] > NOTABLE_IMBALANCE:
            warnings.append(f"{name}: the largest class has {split['imbalance']:.1f} times the images of the smallest")
        if split["passed_over"]:
            warnings.append(f"{name}: passed over {split['passed_over']}")
    if found.unread_folders:
        warnings.append(f"no command reads the folders {listed(found.unread_folders)}: train, val and test are read")
    if found.test_folders:
        folders = listed(found.test_folders)
        warnings.append(f"the folders of test are not classes ({folders}): predict reads them, test does not")
    return warnings


def _print(found: Findings) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    splits = found.splits
    names = sorted({name for split in splits.values() for name in split["classes"]}, key=natural_key)
    counts = Table("class", *splits, title="images by class")
    for name in names:
        counts.add_row(printable(name), *(str(split["classes"].get(name, "-")) for split in splits.values()))
    summary = Table("", *splits, title=printable(found.root))
    summary.add_row("images", *(f"{split['images']:,}" for split in splits.values()))
    summary.add_row("classes", *(str(len(split["classes"]) or "-") for split in splits.values()))
    ratios = (f"{split['imbalance']:.1f}" if split["imbalance"] else "-" for split in splits.values())
    summary.add_row("largest / smallest class", *ratios)
    summary.add_row("width, median (range)", *(_spread(split["widths"]) for split in splits.values()))
    summary.add_row("height, median (range)", *(_spread(split["heights"]) for split in splits.values()))
    summary.add_row("modes", *(", ".join(f"{m} {n:,}" for m, n in split["modes"].items()) for split in splits.values()))
    summary.add_row("turned by EXIF", *(f"{len(split['rotated']):,}" for split in splits.values()))
    if names:
        console.print(counts)
    console.print(summary)
    for split, difference in found.class_differences.items():
        alike = set.intersection(*({as_seen(name) for name in classes} for classes in difference.values()))
        for what, classes in difference.items():
            spelled = [ascii(name) if as_seen(name) in alike else name for name in classes]
            _print_list(console, f"{split} {what} classes" if what == "unknown" else f"{split} {what}", spelled)
    _print_list(console, "unreadable", [f"{bad['path']} ({bad['reason']})" for bad in found.unreadable])
    _print_list(console, "one picture", [" = ".join(group["paths"]) for group in found.duplicates])
    _print_list(console, "warning", found.warnings)
    _print_list(console, "would stop a run", found.stops)
    if not found.stops:
        console.print("nothing would stop a run")


def _print_list(console: Console, what: str, items: list[str]) -> None:
    for item in items[:SHOWN]:
        console.print(f"{what}: {printable(item)}")
    if len(items) > SHOWN:
        console.print(f"{what}: {len(items) - SHOWN:,} more, all of them with --json FILE")


def _spread(values: list[int]) -> str:
    return f"{values[1]} ({values[0]} to {values[2]})" if values else "-"
