"""``cbam100 export``: writes a file that others run, once it has been shown to answer as the checkpoint does."""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from callbacks.run.exact_resume import saved_recipe
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError
from datamodules.sources.data_set import LABEL_OPTIONS
from datamodules.split_names import require_outside_splits
from lightning_modules.exports.header import Format, Precision, export_header, require_pair
from lightning_modules.exports.write import write_export
from lightning_modules.metrics.proportions import wilson_interval
from lightning_modules.network.model_size import format_size
from lightning_modules.trained_model import TrainedModel, load_classifier
from scripts.arguments import Arguments
from scripts.console import counted
from scripts.evaluation import validation_data
from scripts.export.acceptance import Fidelity
from scripts.export.candidate import CANDIDATE, CARD, candidate_folder, put_into_place, require_free
from scripts.export.card_edits import licence_of
from scripts.export.formats import BYTES_PER_WEIGHT, files_of, limit_in_bytes, require_within
from scripts.export.fresh_process import FileAnswers, FileFailedError, answers_in_fresh_process
from scripts.export.model_card import model_card
from scripts.export.validation import calibration_images, evaluate

REFUSED = 1
DATA = ("root", "num_workers", *LABEL_OPTIONS)  # --data.*


class ExportRefusedError(Exception):
    """An export was made and removed, as it does not keep what the checkpoint promises; the message says why."""


@dataclass(frozen=True)
class Exported:
    """An accepted export.

    Attributes:
        path: The file that is opened to run it.
        size: Bytes of all its files.
        comparison: How its answers differ from the checkpoint's.
        answers: What it answered.
        checkpoint_images_per_second: Speed of the checkpoint's network in float32, to compare with that of the file.
    """

    path: Path
    size: int
    comparison: Fidelity
    answers: FileAnswers
    checkpoint_images_per_second: float


def export(
    ckpt_path: str | Path,
    root: str | Path,
    *,
    format: Format,
    precision: Precision,
    output: Path | str,  # the last is the command line's, where "" must not become the folder "."
    max_drop: float = 0.005,
    limit_mb: float = 100.0,
    num_workers: int | None = None,
    labels: Path | str | None = None,  # the last is the command line's, where "" must not become "."
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    class_list: str | Path | None = None,
) -> Exported:
    """Exports a trained model, runs the file on all validation images, and keeps it if it answers as the checkpoint.

    Example:
        >>> export("best.ckpt", "photos", format="onnx", precision="int8", output="out").path  # doctest: +SKIP
        PosixPath('out/model.onnx')

    Args:
        ckpt_path: The trained model, a .ckpt or .safetensors file.
        root: Folder of the data, with the validation images that the file is checked on.
        format: Format of the file; openvino writes model.xml and model.bin.
        precision: Precision of its weights; int8 is calibrated on at most 512 training images, chosen by the seed.
        output: Folder for the file and MODEL_CARD.md; created if missing.
        max_drop: Largest loss of validation accuracy, as a fraction, in another precision than fp32, which may not put
            any image into another class unless the two best logits are within 1e-4.
        limit_mb: Largest size of all files together in MB of 10^6 bytes.
        num_workers: Number of processes that read images; by default the number of CPUs, at most 16.
        labels: Labels file of the data, if they have one.
        image_column: Column of the labels file with the images, if the fit was told.
        label_column: Column of the labels file with the classes, or key of the JSON files in archives, if the fit was
            told.
        split_column: Column of the labels file with the splits, if the fit was told.
        class_list: File with the names of the classes, if the fit was given one.

    Raises:
        UserError: An argument is wrong, a package or the data are missing, or the file would be over the limit.
        ExportRefusedError: The file was not accepted, and was removed.
    """
    require_pair(format, precision)
    limit = limit_in_bytes(limit_mb)
    ckpt_path, root, output = _require_valid(ckpt_path, root, output, max_drop)
    options = {
        "num_workers": num_workers, "labels": _absolute(labels), "image_column": image_column,
        "label_column": label_column, "split_column": split_column, "class_list": _absolute(class_list),
    }  # fmt: skip
    files = files_of(output, format)
    require_outside_splits(output, "--output", root)
    require_outside_splits(output, "--output")
    require_free(files, [ckpt_path])
    model, trained = load_classifier(ckpt_path)
    weights = sum(tensor.numel() for tensor in model.network.state_dict().values())
    require_within(limit, weights * BYTES_PER_WEIGHT[precision], weights, format=format, precision=precision)
    _make(output)
    with candidate_folder(output) as folder:
        data = validation_data(trained, {**options, "root": str(root)})
        checkpoint = evaluate(model, data)
        trained = _completed(trained, checkpoint.right_among(1) / len(checkpoint.targets))
        header = export_header(model, trained, format=format, precision=precision)
        calibration = calibration_images(data) if precision == "int8" else None
        *_, path = files_of(folder, format, CANDIDATE)
        size = write_export(model, header, path, format=format, precision=precision, calibration=calibration)
        require_within(limit, size, weights, format=format, precision=precision)
        try:
            answers = answers_in_fresh_process(path, root, options)
        except FileFailedError as error:
            raise ExportRefusedError(f"{path.name} cannot be used in a fresh process ({error})") from error
        comparison = Fidelity.between(checkpoint, answers.probabilities)
        if reason := comparison.refusal(precision, max_drop):
            raise ExportRefusedError(f"the {format} file in {precision} was removed, as {reason}")
        card = model_card(
            model, data, checkpoint, answers, comparison, files=[file.name for file in files], size=size,
            format=format, precision=precision, max_drop=max_drop, licence=licence_of(output / CARD),
        )  # fmt: skip
        put_into_place(files_of(folder, format, CANDIDATE), files, card)
    return Exported(files[-1], size, comparison, answers, checkpoint.images_per_second)


def main(words: list[str]) -> int | None:
    """Runs ``cbam100 export`` and prints how the file compares; returns 1 if it was not accepted."""
    parser = Arguments(prog="cbam100 export")
    spelled = {name: f"--data.{name}" for name in DATA}
    metavars = {"ckpt_path": "FILE", "root": "DIR", "output": "DIR", "labels": "FILE", "class_list": "FILE"}
    parser.add_parameters(export, spelled=spelled, metavars=metavars)
    options = parser.parse_args(words)
    try:
        exported = export(**vars(options))
    except ExportRefusedError as error:
        print("cbam100: refused:", *str(error).split(), file=sys.stderr)
        return REFUSED
    _print(exported, options.limit_mb)
    return None


def _require_valid(
    ckpt_path: str | Path, root: str | Path, output: str | Path, max_drop: float
) -> tuple[Path, Path, Path]:
    if not (0 <= max_drop <= 1 and math.isfinite(max_drop)):
        raise UserError(f"--max_drop must be a fraction between 0 and 1, got {max_drop}: 0.005 is half a percent")
    if Path(ckpt_path).suffix not in (".ckpt", ".safetensors"):
        raise UserError(f"export starts from a .ckpt or .safetensors file, got {ckpt_path}: pass the trained model")
    if output == "":
        raise UserError("--output is empty: name a folder, such as out, or . for the working directory")
    return Path(ckpt_path), Path(root), Path(output)


def _absolute(path: str | Path | None) -> str | None:
    return str(Path(path).absolute()) if path else None


def _make(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {output} ({error.strerror}): choose another --output") from error
    require_writable(output, "--output")


def _completed(trained: TrainedModel, accuracy: float) -> TrainedModel:
    """Adds to what a file says about its fit what is known otherwise."""
    precision = trained.precision or saved_recipe(trained.checkpoint).get("precision")
    metrics = trained.metrics or {"val/accuracy": accuracy}
    return replace(trained, precision=precision, metrics=metrics, checkpoint={})  # whose optimiser takes memory


def _print(exported: Exported, limit_mb: float) -> None:
    comparison, images = exported.comparison, exported.comparison.images
    table = Table("", str(exported.path.name), "checkpoint, float32", title=str(exported.path))
    right = (comparison.right, comparison.checkpoint_right)
    table.add_row("size", f"{format_size(exported.size)} of {limit_mb:g} MB")
    table.add_row(f"accuracy, {counted(images, 'image')}", *(f"{count / images:.4f}" for count in right))
    intervals = (wilson_interval(count, images) for count in right)
    table.add_row("95 % interval", *(f"{low:.4f} to {high:.4f}" for low, high in intervals))
    table.add_row("right, and the other wrong", f"{comparison.only_file:,}", f"{comparison.only_checkpoint:,}")
    table.add_row("McNemar's exact test", f"p = {comparison.p_value:.2g}")
    table.add_row("same class", f"{comparison.agreeing:,} ({comparison.agreeing / images:.4f})")
    table.add_row("largest difference of a probability", f"{comparison.largest_difference:.2g}")
    speeds = (exported.answers.images_per_second, exported.checkpoint_images_per_second)
    table.add_row("images/s, without reading", *(f"{speed:.1f}" for speed in speeds))
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print(f"checked with {exported.answers.runtime}")
    console.print(f"{exported.path} and {exported.path.with_name(CARD)} are accepted")
