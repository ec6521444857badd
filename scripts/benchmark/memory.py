"""``cbam100 benchmark memory``: what a training step takes, and how scan, loading and prediction grow with the data."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from callbacks.guards.peak_memory import resident_peak
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from lightning_modules import ResNetCBAM
from scripts.benchmark.step import train_step
from scripts.benchmark.whole_commands import export_random_weights
from scripts.main import main
from scripts.module_process import module_process

CLASSES = 100
SIZES = (1_000, 10_000, 100_000)  # of the data sets


def benchmark_memory(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the table, and the values of the JSON file. Every measurement has a process of its own."""
    rows: list[dict[str, Any]] = []
    for way in ("keep activations", "checkpoint activations"):
        words = [str(options.image_size), str(options.batch_size), options.precision]
        rows.append({"name": f"train step, {way}", **_in_a_process("step", way, *words)})
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            root = Path(folder) / str(size)
            _write_images(root, size // CLASSES)
            for what in ("scan", "epoch", "predict"):
                rows.append({"name": f"{what}, {size:,} images", **_in_a_process(what, str(root))})
    return rows, {"size": options.image_size, "batch": options.batch_size, "rows": rows}


def _in_a_process(*words: str) -> dict[str, Any]:
    process = module_process("scripts.benchmark.memory", *words)
    done = subprocess.run(**process, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:] or f"signal {-done.returncode}"
        raise UserError(f"expected to measure {words[0]}, its process ended with {reason}: choose smaller sizes")
    return json.loads(done.stdout.splitlines()[-1])


def _write_images(root: Path, per_class: int) -> None:
    """Copies of one image of each class."""
    for label in range(CLASSES):
        for split, count in (("train", per_class), ("val", 1), ("test", per_class)):
            folder = root / split / (f"class_{label}" if split != "test" else "")
            folder.mkdir(parents=True, exist_ok=True)
            first = folder / f"photograph_{label}_0.jpg"
            Image.new("RGB", (36, 36), (label, 0, 0)).save(first)
            content = first.read_bytes()
            for number in range(1, count):
                (folder / f"photograph_{label}_{number}.jpg").write_bytes(content)


def _measure(what: str, *words: str) -> dict[str, float]:
    start = time.perf_counter()
    match what:
        case "step":
            way, size, batch, precision = words
            network = ResNetCBAM(CLASSES)
            network.activation_checkpointing = way == "checkpoint activations"
            images, targets = torch.randn(int(batch), 3, int(size), int(size)), torch.randint(0, CLASSES, (int(batch),))
            step = train_step(network, images, targets, precision, "none")
            step()
            start = time.perf_counter()
            step()
        case "scan" | "epoch":
            data = ImageFolderDataModule(words[0], image_size=32, batch_size=64)
            start = time.perf_counter()
            data.setup("fit")
            if what == "epoch":
                start = time.perf_counter()
                for _ in data.train_dataloader():
                    pass
        case "predict":
            with tempfile.TemporaryDirectory() as folder:
                weights, rows = Path(folder) / "model.safetensors", Path(folder) / "prediction.csv"
                # A small network leaves the time to what grows.
                export_random_weights(weights, Path(words[0]), image_size=32, backbone="resnet18")
                start = time.perf_counter()
                options = [f"--ckpt_path={weights}", f"--data.root={words[0]}", f"--prediction.path={rows}"]
                main(["predict", *options, "--data.batch_size=64"])
    return {"seconds": time.perf_counter() - start, "megabytes": resident_peak() / 1e6}


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
