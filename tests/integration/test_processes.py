"""All subcommands on two processes, and the installed command from a folder that is not the repository."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from lightning_modules.metrics.temperature import cross_fitted
from lightning_modules.trained_model import read_trained_model
from tests.conftest import SMALL
from tests.integration.fork_driver import LAST_RESORT, REPOSITORY, TRAINING, drive
from tests.integration.test_calibration import temperature_by_hand, validation_by_hand
from tests.integration.test_lightnings_callbacks import metrics_of
from tests.integration.test_resume import differences, load
from tests.integration.test_resume_recipe import RECIPE

pytestmark = pytest.mark.processes
DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]


def accuracy(output):
    return next(line for line in output.splitlines() if "/accuracy " in line)


@pytest.fixture(scope="module")
def fitted(data_root, new_folder):
    folder = new_folder("elsewhere")
    small = [arg for arg in SMALL if "trainer" not in arg]
    options = ["--data.root", data_root, "--trainer.max_epochs=1", "--model.restart_epochs=1"]
    options += ["--model.temperature=fit", "--trainer.precision=32-true"]
    # Both are recommended, and torch cannot combine accumulation with every way of DDP.
    recommended = [f"--config={REPOSITORY}/configs/trainer/ddp.yaml", "--trainer.accumulate_grad_batches=2"]
    processes = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--run_name=default"]
    with contextlib.chdir(folder):
        outputs(["fit", *small, *recommended, *processes, *options])
    return folder / "runs/default/version_0"


def test_the_installed_command_finds_its_defaults(data_root, tmp_path):
    command = [Path(sys.executable).parent / "cbam100", "fit", "--data.root", data_root, "--print_config"]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=LAST_RESORT).stdout
    assert yaml.safe_load(printed)["model"]["weights"] == "IMAGENET1K_V2"


def test_the_temperature_is_that_of_all_validation_images(fitted, data_root):
    weights = load_file(fitted / "model.safetensors")
    expected = temperature_by_hand(weights, data_root)
    assert read_trained_model(fitted / "model.safetensors").temperature == pytest.approx(expected, rel=1e-4)
    # Which may be at its bound; but not without the logits of each image at its place can this be the same:
    logits, targets = validation_by_hand(weights, data_root)
    best = json.loads((fitted / "manifest.json").read_text())["best"]
    measured = {name: best[f"val/{name}_calibrated"] for name in ("nll", "ece")}
    assert measured == pytest.approx(cross_fitted(logits.numpy(), targets.numpy()), rel=1e-4, abs=1e-5)


def outputs(*commands):
    outcomes = drive(*({"args": args} for args in commands))
    assert all(outcome["code"] == 0 for outcome in outcomes), outcomes
    return [outcome["output"] for outcome in outcomes]


def test_fit_and_validate(fitted, data_root, run_folder):
    evaluate = ["validate", "--ckpt_path", fitted / "checkpoints/best.ckpt", "--data.root", data_root,
                "--data.num_workers=0"]  # fmt: skip
    two, one = outputs([*evaluate, *DDP], evaluate)
    assert accuracy(two) == accuracy(one)


def test_predict(fitted, data_root, run_folder):
    evaluate = ["predict", "--ckpt_path", fitted / "model.safetensors", "--data.root", data_root]
    outputs([*evaluate, *DDP, "--prediction.path=two.csv"], [*evaluate, "--prediction.path=one.csv"])
    assert Path("two.csv").read_bytes() == Path("one.csv").read_bytes()


def test_test(fitted, data_root, run_folder):
    shutil.copytree(data_root / "val", "labelled/test")
    (output,) = outputs(["test", "--ckpt_path", fitted / "model.safetensors", "--data.root", "labelled", *DDP])
    assert "test/accuracy" in output


def test_averaged_and_rounded_weights(data_root, run_folder, capsys):
    """Each process has batch-norm statistics of its own until a validation, and yet all measure what one does."""
    small = [arg for arg in SMALL if "trainer" not in arg]
    args = ["fit", *small, *DDP, f"--data.root={data_root}", "--data.batch_size=4", "--trainer.max_epochs=2",
            "--model.restart_epochs=2", "--model.ema_decay=0.5", "--size_budget.precision=fp16"]  # fmt: skip
    outputs([*args, "--run_name=whole"], [*args, "--trainer.max_steps=4"], [*args, "--ckpt_path=last"])
    whole, resumed = Path("runs/whole/version_0"), Path("runs/default/version_0")
    assert differences(*(load(run / "checkpoints/last.ckpt") for run in (whole, resumed))) == []
    best = json.loads((resumed / "manifest.json").read_text())["best"]
    measured = {name: value for name, value in best.items() if name.startswith("val/")}
    assert metrics_of(resumed / "checkpoints/best.ckpt", data_root, capsys) == measured


@pytest.mark.slow
def test_all_options_at_once_resume_after_every_step(data_root, run_folder):
    small = [arg for arg in SMALL if "trainer" not in arg]
    args = ["fit", *small, *DDP, f"--data.root={data_root}", "--data.batch_size=4", "--trainer.max_epochs=2", *RECIPE]
    plans = [{"args": [*args, "--run_name=whole"]}]
    for step in range(1, 12):  # of 12
        named = [*args, f"--run_name=step_{step}"]
        plans.append({"args": named, "at": [TRAINING, step], "signal": signal.SIGTERM, "group": True})
        plans.append({"args": [*named, "--ckpt_path=last"]})
    outcomes = drive(*plans)
    assert [outcome["code"] for outcome in outcomes] == [0, *11 * [143, 0]], outcomes
    expected = load("runs/whole/version_0/checkpoints/last.ckpt")
    for step in range(1, 12):
        assert differences(load(f"runs/step_{step}/version_0/checkpoints/last.ckpt"), expected) == []
