"""``cbam100 benchmark predict`` and ``fit``: whole commands, start-up included, in processes of their own."""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from datamodules.images.find import find_images
from lightning_modules import ImageClassifier
from lightning_modules.trained_model import export_metadata
from scripts.benchmark.timing import alternate, row, run_script
from scripts.module_process import module_process

EXACT = Path(__file__).parents[2] / "configs" / "experiment" / "reference_exact.yaml"


def benchmark_predict(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """From ``ROOT/test`` and a file of random weights to a CSV; the baseline is ``scripts.plain_predict``."""
    root = options.root.resolve()
    images = len(find_images(root / "test").paths)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        placement = options.attention_placement
        export_random_weights(weights, root, image_size=options.image_size, attention_placement=placement)
        fast = ["scripts.main", "predict", f"--ckpt_path={weights}", f"--data.root={root}"]
        fast += [f"--data.batch_size={options.batch_size}", "--prediction.path=fast.csv"]
        plain = ["scripts.plain_predict", str(weights), str(root / "test"), "plain.csv"]
        contenders = {
            "predict": _command(folder, [*fast, f"--trainer.precision={options.precision}"]),
            "predict, plain": _command(folder, [*plain, f"--batch_size={options.batch_size}"]),
        }
        seconds = alternate(contenders, options.rounds, warm_up=0)
    rows = [row(name, images, times, seconds["predict, plain"]) for name, times in seconds.items()]
    values = {"images": images, "size": options.image_size, "batch": options.batch_size, "precision": options.precision}
    return rows, {**values, "predict_images_per_s": rows[0]["images_per_s"], "predict_gain_over_plain": rows[0]["gain"]}


def benchmark_fit(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A fit from random weights; the baseline is an outside script's ``fit``, or ``reference_exact.yaml``.

    The outside script prints ``val_accuracy_percent`` for each epoch.
    """
    root = options.root.resolve()
    images = options.max_epochs * len(find_images(root / "train").paths)
    sizes = ["--size", str(options.image_size), "--batch", str(options.batch_size), "--epochs", str(options.max_epochs)]
    accuracies: dict[str, list[float]] = {"fit": [], "fit, plain": []}
    with tempfile.TemporaryDirectory() as folder:
        shared = ["scripts.main", "fit", f"--data.root={root}", "--model.weights=none"]
        shared += [f"--data.image_size={options.image_size}", f"--data.batch_size={options.batch_size}"]
        shared += [f"--trainer.max_epochs={options.max_epochs}"]
        fast = [*shared, f"--data.cache={options.cache}", f"--model.compile={options.compile}", "--run_name=fast"]
        fast.append(f"--trainer.precision={options.precision}")
        run = _command(folder, fast)
        exact = _command(folder, [*shared, f"--config={EXACT}", "--run_name=exact"])

        def fit() -> None:
            run()
            accuracies["fit"].append(_best_accuracy(Path(folder) / "runs" / "fast"))

        def plain() -> None:
            if options.baseline:
                result = run_script(options.baseline, "fit", "--data", str(root), *sizes)
                accuracies["fit, plain"].append(max(result["val_accuracy_percent"]) / 100)
            else:
                exact()
                accuracies["fit, plain"].append(_best_accuracy(Path(folder) / "runs" / "exact"))

        seconds = alternate({"fit": fit, "fit, plain": plain}, options.rounds, warm_up=0)
    rows = [row(name, images, times, seconds["fit, plain"]) for name, times in seconds.items()]
    return rows, {
        "size": options.image_size,
        "batch": options.batch_size,
        "epochs": options.max_epochs,
        "precision": options.precision,
        "seconds": seconds["fit"],
        "plain_seconds": seconds["fit, plain"],
        "best_val_accuracy": accuracies["fit"],
        "plain_best_val_accuracy": accuracies["fit, plain"],
        "fit_gain_over_plain": rows[0]["gain"],
    }


def _command(folder: str, words: list[str]) -> Callable[[], None]:
    def run() -> None:
        done = subprocess.run(**module_process(*words), cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"expected {words[0]} to succeed, it said: {' '.join(done.stderr.split())[-500:]}")

    return run


def export_random_weights(path: Path, root: Path, *, image_size: int, **architecture: Any) -> None:
    """Writes a ``model.safetensors`` with the classes of ``root`` that was never trained."""
    data = ImageFolderDataModule(str(root), image_size=image_size)
    model = ImageClassifier(list(data.classes.names), weights="none", **architecture)
    safetensors.torch.save_file(model.network.state_dict(), path, export_metadata(model, data, {}))


def _best_accuracy(folder: Path) -> float:
    newest = max(folder.glob("version_*"), key=lambda version: int(version.name.removeprefix("version_")))
    return json.loads((newest / "manifest.json").read_text())["best"]["val/accuracy"]
