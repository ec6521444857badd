"""Checks on a GPU of what the tests check on a CPU."""

import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from datamodules.images.find import find_images
from scripts.benchmark.gpu.bench import REPOSITORY, Bench
from scripts.demo.make_demo_data import make_demo_data

BATCH_SIZE = 16  # as in configs/default.yaml
TWO_EPOCHS = ["--trainer.max_epochs=2", "--model.restart_epochs=2"]
ONE_EPOCH = ["--trainer.max_epochs=1", "--model.restart_epochs=1"]
NO_FIGURES = "--insight.every_n_epochs=0"
GPU_TESTS = "tests/integration/test_gpu.py"


class DieAt(Callback):
    """Kills the process before a training batch; epochs and batches are counted from 0."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(bench: Bench) -> None:
    """Trains the default recipe for two epochs; compares validate with fit, and predict with the CPU."""
    options = [*bench.sizes.device_options, f"--data.root={bench.data}"]
    bench.succeed(*bench.fit_words(bench.data, *TWO_EPOCHS))
    run = bench.run_folder("default")
    best = run.read_manifest()["best"]
    detail = f"val/loss {best['val/loss']:.4f}, val/accuracy {best['val/accuracy']:.4f}"
    bench.check("two epochs of the default recipe end with a finite loss", math.isfinite(best["val/loss"]), detail)
    metrics = bench.metrics("validate", *options, f"--ckpt_path={run.weights}")
    differing = {name: (best[name], value) for name, value in metrics.items() if best[name] != value}
    passed = bool(metrics) and not differing
    bench.check("validate of the export equals fit to the last digit", passed, str(differing or ""))
    _compare_predictions(bench, run.weights, options)


def _compare_predictions(bench: Bench, model: Path, options: list[str]) -> None:
    mixed, full = "--trainer.precision=bf16-mixed", "--trainer.precision=32-true"
    cpu = ["--trainer.accelerator=cpu", f"--data.root={bench.data}", full]
    probability = {}
    for name, way in {"cpu": cpu, "float32": [*options, full], "bfloat16": [*options, mixed]}.items():
        output = ["--prediction.probabilities=true", f"--prediction.path={name}.csv"]
        bench.succeed("predict", *way, f"--ckpt_path={model}", *output)
        probability[name] = np.load(bench.folder / f"{name}_probabilities.npz")["probability"]
    for name, allowed in {"float32": 1e-4, "bfloat16": 0.05}.items():
        devices = f"GPU {name} vs CPU float32"
        equal = (probability[name].argmax(1) == probability["cpu"].argmax(1)).mean()
        difference = float(np.abs(probability[name] - probability["cpu"]).max())
        bench.figure(f"largest probability difference, {devices}", "", [difference])
        bench.figure(f"share of labels equal, {devices}", "", [float(equal)])
        bench.check(f"probabilities differ by at most {allowed}, {devices}", difference <= allowed, f"{difference:.2g}")


def deterministic(bench: Bench) -> None:
    """Kills a run and resumes it: it must be bit-equal to one that was not killed."""
    steps = bench.sizes.num_classes * bench.sizes.train_images // BATCH_SIZE  # of an epoch
    every = math.ceil(0.6 * steps)  # the second save is inside the second epoch
    fit = bench.fit_words(bench.data, *TWO_EPOCHS, NO_FIGURES)
    fit += ["--trainer.deterministic=true", f"--best.every_n_steps={every}"]
    bench.succeed(*fit, "--run_name=once")
    die = bench.callback_option(DieAt, epoch=1, batch=2 * every - steps + 1)
    killed = bench.command(*fit, "--run_name=resumed", die)
    bench.check("a run was killed inside its second epoch", killed.exit_code == -signal.SIGKILL)
    bench.succeed(*fit, "--run_name=resumed", "--ckpt_path=last")
    _compare_runs(bench, "once", "resumed")


def _compare_runs(bench: Bench, *runs: str) -> None:
    files = [bench.run_folder(run).last for run in runs]
    first, second = (torch.load(file, map_location="cpu", weights_only=True) for file in files)
    differing = [key for key, value in first["state_dict"].items() if not torch.equal(value, second["state_dict"][key])]
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (first, second)]
    for parameter, state in states[0].items():
        for key, value in state.items():
            if not torch.equal(value, states[1][parameter][key]):
                differing.append(f"{key} of parameter {parameter}")
    detail = f"{len(differing)} tensors differ, {differing[:3]}" if differing else ""
    bench.check("a killed and resumed run is bit-equal to another", not differing, detail)


def options(bench: Bench) -> None:
    """Takes a few steps with the options that change how a step is computed."""
    fit = bench.fit_words(bench.data, *ONE_EPOCH, NO_FIGURES)
    fit += ["--trainer.limit_train_batches=4", "--trainer.limit_val_batches=2", "--data.num_workers=2"]
    first, second = bench.sizes.precisions
    clip = "--trainer.gradient_clip_val=1.0"
    ddp = {"ddp": "--trainer.strategy=ddp", "accumulation": "--trainer.accumulate_grad_batches=2"}
    if bench.sizes.device == "cuda":  # torch has it for GPUs only
        ddp["sync_batchnorm"] = "--trainer.sync_batchnorm=true"
    ways = {  # few, as each start takes seconds
        f"clipping, precision {first}": [clip, f"--trainer.precision={first}"],
        "clipping, activation checkpointing": [clip, "--model.activation_checkpointing=true"],
        f"{', '.join(ddp)}, precision {second}": [*ddp.values(), f"--trainer.precision={second}"],
    }
    for name, way in ways.items():
        run = name.replace(", ", "_").replace(" ", "_")
        outcome = bench.command(*fit, *way, f"--run_name={run}")
        if outcome.exit_code:
            bench.check(name, False, " ".join(outcome.output.split())[-200:])
            continue
        loss = bench.run_folder(run).read_manifest()["best"]["val/loss"]
        bench.check(name, math.isfinite(loss), f"val/loss {loss:.4f}")


def faults(bench: Bench) -> None:
    """Ends a run by an unreadable image, and one by a non-finite loss: each must say so in one sentence."""
    root = bench.folder / "data"
    make_demo_data(root, size=64, num_classes=3, train_images=12, val_images=2, test_images=0)
    image = Path(find_images(root / "train").images[5].path)
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    fit = bench.fit_words(root, *ONE_EPOCH, NO_FIGURES)
    fit += ["--model.backbone=resnet18", "--data.image_size=64", "--data.batch_size=4"]
    ended = bench.command(*fit, "--run_name=unreadable")
    named = ended.exit_code == 2 and image.name in ended.output
    bench.check("an unreadable image ends a run, which names it", named, f"exit code {ended.exit_code}")
    bench.check("an unreadable image gives no traceback", "Traceback" not in ended.output)
    image.write_bytes(content)
    ended = bench.command(*fit, "--run_name=diverges", "--model.learning_rate=1e30")
    bench.check("a non-finite loss ends with exit code 2", ended.exit_code == 2, f"exit code {ended.exit_code}")
    is_said = re.search(r"^cbam100: error: .*\bloss\b.*\b(nan|inf)\b", ended.output, re.M) is not None
    bench.check("a non-finite loss is reported as such", is_said)


def tests(bench: Bench) -> None:
    """Runs the tests marked gpu; on the CPU in a rehearsal."""
    os.chdir(REPOSITORY)
    words = ["-m", "gpu", f"--gpu-tests-on={bench.sizes.device}", "-q", "-p", "no:cacheprovider"]
    code = pytest.main([*words, "-o", "filterwarnings=default", f"--basetemp={bench.folder / 'pytest'}", GPU_TESTS])
    bench.check("the tests marked gpu", code == pytest.ExitCode.OK, f"pytest ended with {int(code)}")
