"""Data drawn once, and the command run in a folder of its own."""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for processes that tests start

import pytest
import torch
from hypothesis import HealthCheck, settings

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
    "--insight.every_n_epochs=0",
]

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Has the tests of a file run in one of the parallel processes, which makes their fixtures, and all that start
    processes in another, first, because they take longest."""
    items.sort(key=lambda item: item.get_closest_marker("processes") is None)
    for item in items:
        marked = item.get_closest_marker("processes")
        item.add_marker(pytest.mark.xdist_group("processes" if marked else item.path.stem))


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
