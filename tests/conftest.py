"""Data drawn once, and the command run in a folder of its own."""

import os
from pathlib import Path

import pytest
import torch

from scripts.main import main
from scripts.make_demo_data import make_demo_data

CLASSES = 12  # more than ten, so that natural and lexical order differ

# A network and images small enough for a test; everything else is the reference recipe.
SMALL = [
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
    "--model.weights=none",
    "--model.backbone=resnet18",
    "--data.image_size=32",
    "--data.num_workers=0",
]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # the same sums on every machine


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """12 classes: 4 training, 2 validation and 2 test images each, 36 px."""
    root = tmp_path_factory.mktemp("data") / "root"
    make_demo_data(root, size=36, num_classes=CLASSES, train_images=4, val_images=2, test_images=2)
    return root


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(data_root, tmp_path_factory):
    """The run folder of a two-epoch fit."""
    folder = tmp_path_factory.mktemp("fit")
    before = Path.cwd()
    os.chdir(folder)
    try:
        torch.set_num_threads(1)
        main(["fit", *SMALL, f"--data.root={data_root}", "--trainer.max_epochs=2", "--model.restart_epochs=2"])
    finally:
        os.chdir(before)
    return folder / "runs" / "default" / "version_0"
