"""The installed command, on two processes, from a folder that is not the repository."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL

DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]


def cbam100(folder, *args):
    command = [Path(sys.executable).parent / "cbam100", *map(str, args)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def fitted(data_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    small = [arg for arg in SMALL if "trainer" not in arg]
    cbam100(folder, "fit", *small, *DDP, "--data.root", data_root, "--trainer.max_epochs=1", "--model.restart_epochs=1")
    return folder


def accuracy(output):
    return next(line for line in output.splitlines() if "/accuracy " in line)


def test_fit_and_validate(fitted, data_root):
    best = fitted / "runs/default/version_0/checkpoints/best.ckpt"
    evaluate = ["--ckpt_path", best, "--data.root", data_root, "--data.num_workers=0"]
    two, one = cbam100(fitted, "validate", *evaluate, *DDP), cbam100(fitted, "validate", *evaluate)
    assert accuracy(two) == accuracy(one)


def test_predict(fitted, data_root):
    evaluate = ["--ckpt_path", fitted / "runs/default/version_0/model.safetensors", "--data.root", data_root]
    cbam100(fitted, "predict", *evaluate, *DDP, "--prediction.path=two.csv")
    cbam100(fitted, "predict", *evaluate, "--prediction.path=one.csv")
    assert (fitted / "two.csv").read_bytes() == (fitted / "one.csv").read_bytes()


def test_test(fitted, data_root):
    shutil.copytree(data_root / "val", fitted / "labelled" / "test")
    model = fitted / "runs/default/version_0/model.safetensors"
    assert "test/accuracy" in cbam100(fitted, "test", "--ckpt_path", model, "--data.root", "labelled", *DDP)
