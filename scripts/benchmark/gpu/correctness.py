"""What is promised on a CPU, tried on a GPU."""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules.images.find import find_images
from scripts.benchmark.gpu.bench import Bench
from scripts.demo.make_demo_data import make_demo_data

EPOCHS = ["--trainer.max_epochs=2", "--model.restart_epochs=2"]
ONE_EPOCH = ["--trainer.max_epochs=1", "--model.restart_epochs=1"]
BATCH = 16  # of the default recipe
REPOSITORY = Path(__file__).parents[3]


class DieAt(Callback):
    """Kills the process before a training batch.

    Args:
        epoch: The epoch, from 0.
        batch: The batch, from 0.
    """

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Kills."""
        if (trainer.current_epoch, batch_idx) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def run_folder(bench: Bench, name: str) -> Path:
    """The first version of a run."""
    return bench.folder / "runs" / name / "version_0"


def fit(bench: Bench) -> None:
    """The default recipe, what it measured, and predictions beside the CPU's."""
    words = [*bench.sizes.words, f"--data.root={bench.data}"]
    bench.succeed("fit", *words, *bench.sizes.recipe, *EPOCHS)
    run = run_folder(bench, "default")
    best = json.loads((run / "manifest.json").read_text())["best"]
    bench.check("two epochs of the default recipe", best["val/accuracy"] >= 0, f"val/accuracy {best['val/accuracy']}")
    for file in ("checkpoints/best.ckpt", "model.safetensors"):
        metrics = bench.metrics("validate", *words, f"--ckpt_path={run / file}")
        differing = {name: (best[name], value) for name, value in metrics.items() if best[name] != value}
        bench.check(f"validate of {file} equals fit to the last digit", not differing and bool(metrics), str(differing))
    tables = {}
    cpu = ["--trainer.accelerator=cpu", f"--data.root={bench.data}"]
    mixed, full = "--trainer.precision=bf16-mixed", "--trainer.precision=32-true"
    for name, way in {"cpu": [*cpu, full], "float32": [*words, full], "bfloat16": [*words, mixed]}.items():
        output = ["--prediction.probabilities=true", f"--prediction.path={name}.csv"]
        bench.succeed("predict", *way, f"--ckpt_path={run / 'model.safetensors'}", *output)
        tables[name] = np.load(bench.folder / f"{name}_probabilities.npz")["probability"]
    for name, allowed in {"float32": 1e-4, "bfloat16": 0.05}.items():
        labels = (tables[name].argmax(1) == tables["cpu"].argmax(1)).mean()
        difference = float(np.abs(tables[name] - tables["cpu"]).max())
        bench.figure(f"largest difference of a probability in {name} from the CPU's", "", [difference])
        bench.figure(f"equal labels in {name} and on the CPU", "share", [float(labels)])
        bench.check(f"probabilities in {name} are the CPU's to {allowed}", difference <= allowed, f"{difference:.2g}")


def deterministic(bench: Bench) -> None:
    """The same run twice, and once killed and resumed, to the bit."""
    shared = ["fit", *bench.sizes.words, f"--data.root={bench.data}", *bench.sizes.recipe, *EPOCHS]
    steps = bench.sizes.classes * bench.sizes.images // BATCH  # of an epoch
    every = math.ceil(0.6 * steps)  # so that the second file is saved inside the second epoch
    shared += ["--trainer.deterministic=true", f"--best.every_n_steps={every}", "--insight.every_n_epochs=0"]
    bench.succeed(*shared, "--run_name=once")
    bench.succeed(*shared, "--run_name=again")
    _compare(bench, "a second run is equal to the bit", "again")
    die = {
        "class_path": f"{DieAt.__module__}.{DieAt.__name__}",
        "init_args": {"epoch": 1, "batch": 2 * every - steps + 1},
    }
    (bench.folder / "die.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [die]}}))
    killed = bench.command(*shared, "--run_name=resumed", "--config=die.yaml")
    bench.check("killed inside the second epoch", killed.code == -signal.SIGKILL, f"exit code {killed.code}")
    bench.succeed(*shared, "--run_name=resumed", "--ckpt_path=last")
    _compare(bench, "killed and resumed, it is equal to the bit", "resumed")


def _compare(bench: Bench, name: str, other: str) -> None:
    files = [run_folder(bench, run) / "checkpoints" / "last.ckpt" for run in ("once", other)]
    first, second = (torch.load(file, map_location="cpu", weights_only=True) for file in files)
    differing = [key for key, value in first["state_dict"].items() if not torch.equal(value, second["state_dict"][key])]
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (first, second)]
    for parameter, state in states[0].items():
        for key, value in state.items():
            if not torch.equal(value, states[1][parameter][key]):
                differing.append(f"{key} of parameter {parameter}")
    bench.check(name, not differing, f"{len(differing)} tensors differ, {differing[:3]}" if differing else "")


def options(bench: Bench) -> None:
    """A few steps with each option that changes how a step is computed."""
    words = [*bench.sizes.words, f"--data.root={bench.data}", *bench.sizes.recipe, *ONE_EPOCH]
    words += ["--trainer.limit_train_batches=4", "--trainer.limit_val_batches=2", "--insight.every_n_epochs=0"]
    ways = {
        "ddp": ["--trainer.strategy=ddp"],
        "ddp and sync_batchnorm": ["--trainer.strategy=ddp", "--trainer.sync_batchnorm=true"],
        **{name: [f"--trainer.precision={name}"] for name in bench.sizes.precisions},
        "gradient clipping": ["--trainer.gradient_clip_val=1.0"],
        "accumulation": ["--trainer.accumulate_grad_batches=2"],
        "activation checkpointing": ["--model.activation_checkpointing=true"],
    }
    if bench.sizes.device == "cpu":
        del ways["ddp and sync_batchnorm"]  # torch has it for GPUs only
    for name, way in ways.items():
        run = name.replace(" ", "_")
        outcome = bench.command("fit", *words, *way, f"--run_name={run}")
        manifest = run_folder(bench, run) / "manifest.json"
        loss = json.loads(manifest.read_text())["best"]["val/loss"] if outcome.code == 0 else float("nan")
        said = "" if outcome.code == 0 else " ".join(outcome.output.split())[-200:]
        bench.check(name, bool(np.isfinite(loss)), f"val/loss {loss:.4f}{said and ': '}{said}")


def faults(bench: Bench) -> None:
    """An image that cannot be read, and a loss that is no number, end a run with a sentence."""
    root = bench.folder / "data"
    make_demo_data(root, size=64, num_classes=3, train_images=12, val_images=2, test_images=0)
    bad = Path(find_images(root / "train").paths[5])
    content = bad.read_bytes()
    bad.write_bytes(content[: len(content) // 2])
    words = ["fit", *bench.sizes.words, f"--data.root={root}", *ONE_EPOCH, "--model.weights=none"]
    words += ["--model.backbone=resnet18", "--data.image_size=64", "--insight.every_n_epochs=0"]
    ended = bench.command(*words, "--run_name=error")
    bench.check("an unreadable image ends with its name", ended.code == 2 and bad.name in ended.output)
    bench.check("and has no traceback", "Traceback" not in ended.output)
    bad.write_bytes(content)
    for name, rate in {"first": "1e30", "resumed": "1e-3"}.items():
        ended = bench.command(*words, "--run_name=nan", f"--model.learning_rate={rate}", "--data.batch_size=4")
        if name == "first":
            bench.check("a loss that is no number ends with a sentence", ended.code == 2, f"exit code {ended.code}")
            bench.check("and says which batch it was", "expected a finite loss, got" in ended.output)
            shutil.rmtree(bench.folder / "runs" / "nan", ignore_errors=True)
        else:
            bench.check("and the next run is well", ended.code == 0, f"exit code {ended.code}")


def tests(bench: Bench) -> None:
    """The tests that are marked ``gpu``; in a rehearsal they run on the CPU."""
    os.chdir(REPOSITORY)
    words = ["-m", "gpu", f"--gpu-tests-on={bench.sizes.device}", "-q", "-p", "no:cacheprovider"]
    code = pytest.main([*words, "-o", "filterwarnings=default", f"--basetemp={bench.folder / 'pytest'}", "tests"])
    bench.check("the tests marked gpu", code == pytest.ExitCode.OK, f"pytest ended with {int(code)}")
