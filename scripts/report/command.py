"""``cbam100 report``: writes a page about a run that can be read without the run folder."""

import base64
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from callbacks import SizeBudget
from callbacks.figures.draw import (
    class_accuracy_figure,
    confusion_figure,
    coverage_figure,
    curves_figure,
    reliability_figure,
    short,
    sizes_figure,
    to_png,
    worst_images_figure,
)
from callbacks.predictions.answers import Answers, most_confused
from callbacks.run.config import leaves
from callbacks.run.run_folder import RunFolder
from datamodules import ImageFolderDataModule
from datamodules.files import own_files
from datamodules.files.atomic_file import require_writable, write_bytes
from datamodules.files.own_files import require_replaceable
from lightning_modules import ImageClassifier
from lightning_modules.network.model_size import format_size, parameter_count, part_sizes
from scripts.arguments import Arguments
from scripts.evaluation import RunEvaluation, evaluate_run
from scripts.explain.command import explain_image
from scripts.report.calibration import calibration_rows, coverage, temperature_sentence, threshold_rows
from scripts.report.labels_to_check import LabelsToCheck, check_labels, out_of_fold_of, write_labels_to_check

TEMPLATE = Path(__file__).with_name("report.html.jinja")
PANELS = {
    "accuracy": ("train/accuracy", "val/accuracy", "val/accuracy_macro", "val/accuracy_top5"),
    "loss": ("train/loss", "val/loss"),
    "learning rate": ("lr",),
    "negative log-likelihood": ("val/nll", "val/nll_calibrated"),
    "training images per second": ("images_per_second",),
    "share of training time spent waiting for data": ("data_wait_share",),
}
SPEEDS = (
    ("epoch_seconds", "seconds per epoch, with validation, without saving", ".1f"),
    ("images_per_second", "training images per second", ".1f"),
    ("data_wait_share", "share of training time spent waiting for data", ".1%"),
)
MAPS = 4  # images each of the most confident right and of the worst predictions


def report(
    run: str | Path,
    root: str | Path | None = None,
    *,
    labels: Path | str | None = None,  # the last is the command line's, where "" must not become "."
    class_list: str | Path | None = None,
    out_of_fold: str | Path | None = None,
) -> Path:
    """Evaluates the best weights of a run on its validation images; writes report.html to its folder.

    With probabilities of all training images from models that did not train on them, it also ranks the images by how
    likely their label is wrong, and writes labels_to_check.csv beside the page.

    Example:
        >>> report("runs/default/version_0")  # doctest: +SKIP
        PosixPath('runs/default/version_0/report.html')

    Args:
        run: Folder of the run, runs/<name>/version_<k>.
        root: Folder of the data, if they have moved since the run.
        labels: Labels file of the data, if it has moved; empty for none.
        class_list: List of classes of the data, if it has moved.
        out_of_fold: Probabilities of the training images, as ablate --folds writes them, to find wrong labels with; by
            default those of the ablation that the run belongs to, if it has folds.

    Returns:
        Path of the page.

    Raises:
        UserError: The folder is not that of a fit with a best epoch, its data cannot be found, or the probabilities
            are not of its training images.
    """
    folder = RunFolder(Path(run))
    manifest = folder.read_manifest()
    require_writable(folder.path, "--run")
    require_replaceable(folder.report, own_files.REPORT, "--run")
    config = folder.read_config()
    moved = {"root": root, "labels": labels, "class_list": class_list}
    options = config["data"] | {name: str(path) for name, path in moved.items() if path}
    if labels == "":  # the data have another form now
        options |= {"labels": None, "split_column": None}
    source = Path(out_of_fold) if out_of_fold else out_of_fold_of(folder)
    to_check = None
    if source:
        require_replaceable(folder.labels_to_check, own_files.LABELS_TO_CHECK, "--run")
        to_check = check_labels(source, ImageFolderDataModule(**options))
    page = _page(folder, manifest, config, evaluate_run(folder, options), to_check)
    if to_check:
        write_labels_to_check(folder.labels_to_check, to_check)
    write_bytes(folder.report, page.encode(errors="backslashreplace"))
    return folder.report


def main(words: list[str]) -> None:
    """Runs ``cbam100 report`` and prints the path of the page."""
    parser = Arguments(prog="cbam100 report")
    spelled = {name: f"--data.{name}" for name in ("root", "labels", "class_list")}
    metavars = {"run": "DIR", "root": "DIR", "labels": "FILE", "class_list": "FILE", "out_of_fold": "FILE.csv"}
    parser.add_parameters(report, spelled=spelled, metavars=metavars)
    print(report(**vars(parser.parse_args(words))))


def _page(
    run: RunFolder,
    manifest: dict[str, Any],
    config: dict[str, Any],
    evaluation: RunEvaluation,
    to_check: LabelsToCheck | None,
) -> str:
    model, data, answers, metrics = evaluation.model, evaluation.data, evaluation.answers, evaluation.metrics
    names, scalars, dataset = model.classes.names, run.read_scalars(), data.dataset("val")
    confusion = answers.confusion(len(names))
    counts, confidence, accuracy = (column.numpy() for column in evaluation.reliability)
    budget = SizeBudget(**config["size_budget"])
    sizes = part_sizes(model.network, budget.dtype)
    return _template().render(
        base64=lambda png: base64.b64encode(png).decode(),
        run=str(run.path),
        manifest=manifest,
        metrics=metrics,
        images=len(answers.samples),
        size=format_size(sum(sizes.values())),
        limit=format_size(budget.limit),
        parameters=parameter_count(model.network),
        recipe=[(name, value) for name, value in leaves(config) if value is not None and name != "data.class_names"],
        curves=to_png(curves_figure(scalars, PANELS)),
        confusion=to_png(confusion_figure(confusion, names)),
        pairs=[(names[i], names[j], count, int(confusion[i].sum())) for i, j, count in most_confused(confusion)],
        classes=_class_rows(confusion, names),
        class_accuracy=to_png(class_accuracy_figure(confusion, names)),
        worst=to_png(worst_images_figure(dataset, answers, names)),
        maps=_maps(model, dataset, answers),
        to_check=to_check,
        reliability=to_png(reliability_figure(counts, confidence, accuracy, metrics["val/ece"])),
        calibration=calibration_rows(answers, metrics["val/nll"], metrics["val/ece"]),
        temperature=temperature_sentence(answers, model.temperature if model.hparams["temperature"] == "fit" else None),
        coverage=to_png(coverage_figure(*coverage(answers), metrics["val/accuracy"])),
        thresholds=threshold_rows(answers),
        sizes=[(part, format_size(size)) for part, size in sizes.items()],
        size_figure=to_png(sizes_figure(sizes, budget.limit)),
        speed=_speed_rows(scalars),
        splits=[(split, facts["images"], facts["sha256"]) for split, facts in manifest["data"].items()],
        held_out=data.held_out[:1].upper() + data.held_out[1:],
        skipped=[(split, len(unreadable)) for split, unreadable in manifest["skipped"].items()],
        events=[[event[name] for name in ("event", "time", "epoch", "step")] for event in manifest["events"]],
    )


def _template() -> jinja2.Template:
    return jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _speed_rows(scalars: Mapping[str, Mapping[int, float]]) -> list[tuple[str, str]]:
    """Returns name and median over epochs of each speed that the run logged."""
    logged = [(name, text, form) for name, text, form in SPEEDS if scalars.get(name)]
    return [(text, format(statistics.median(scalars[name].values()), form)) for name, text, form in logged]


def _class_rows(confusion: np.ndarray, names: Sequence[str]) -> list[tuple[str, int, str, str]]:
    """Returns name, images, accuracy and most frequent mistake of each class: worst first, empty ones last."""
    rows = []
    totals, right = confusion.sum(1), np.diag(confusion)
    mistakes = confusion - np.diag(right)
    order = sorted(range(len(names)), key=lambda i: (not totals[i], right[i] / max(totals[i], 1)))
    for i in order:
        worst = int(mistakes[i].argmax())
        mistake = f"{names[worst]} ({mistakes[i, worst]})" if mistakes[i].any() else ""
        rows.append((names[i], int(totals[i]), f"{right[i] / totals[i]:.3f}" if totals[i] else "", mistake))
    return rows


def _maps(model: ImageClassifier, dataset: Any, answers: Answers) -> list[bytes]:
    """Draws the attention over the images with the most confident right predictions and over the worst ones."""
    order = answers.worst(len(answers.samples))
    rows = dict.fromkeys([*order[::-1][:MAPS].tolist(), *order[:MAPS].tolist()])
    pictures = []
    for row in rows:
        title = f"{short(model.classes.names[int(answers.targets[row])])}: p = {answers.probability[row]:.2g}"
        pictures.append(explain_image(model, dataset[int(answers.samples[row])].images.numpy(), title))
    return pictures
