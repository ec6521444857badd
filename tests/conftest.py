"""Data drawn once, and the command run in a folder of its own."""

import contextlib
import functools
import os
import shutil
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for processes that tests start

import pytest
import torch
from hypothesis import HealthCheck, settings
from torchvision.models import _api
from xdist.scheduler import LoadFileScheduling

from scripts.demo.make_demo_data import make_demo_data
from scripts.main import main
from tests import narrow_resnet

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

# Each epoch of a run writes 100 MB and more, which need not reach a disk where memory is plenty.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 8e9:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@functools.cache
def starts_processes(file):
    return "mark.processes" in Path(file).read_text()


class Scheduling(LoadFileScheduling):
    """Fixtures of a module are made once, and tests of processes do not disturb each other.

    Own code, because with pytest 9.2 pytest-xdist 3.8 loses its groups.
    """

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        return "processes" if starts_processes(self.config.rootpath / file) else file


def pytest_addoption(parser):
    parser.addoption(
        "--gpu-tests-on", default="cuda", metavar="DEVICE", help="device for the tests marked gpu; cpu rehearses them"
    )


@pytest.fixture(scope="session")
def gpu(request):
    """The device of the tests marked ``gpu``, which are skipped where there is none."""
    device = torch.device(request.config.getoption("--gpu-tests-on"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU, which this machine lacks or torch cannot use")
    return device


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not starts_processes(item.path))  # they take longest


@contextlib.contextmanager
def working_in(folder):
    """Works in a folder with one thread, as tests do, for a fixture that many tests share; yields a ``MonkeyPatch``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        yield patch


@pytest.fixture(autouse=True)
def _same_settings():
    torch.set_num_threads(1)  # the same sums on every machine
    torch.use_deterministic_algorithms(False)  # which a command leaves as its run had it


@pytest.fixture
def wide_resnet18(monkeypatch):
    """torchvision's own resnet18 instead of the narrow one."""
    monkeypatch.setitem(_api.BUILTIN_MODELS, "resnet18", narrow_resnet.WIDE)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """12 classes: 4 training, 2 validation and 2 test images each, 36 px."""
    root = tmp_path_factory.mktemp("data") / "root"
    make_demo_data(root, size=36, num_classes=CLASSES, train_images=4, val_images=2, test_images=2)
    return root


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory):
    """Makes folders that go with the module: with the checkpoints of all modules, memory would run out."""
    folders = []

    def make(name):
        folders.append(tmp_path_factory.mktemp(name))
        return folders[-1]

    yield make
    for folder in folders:
        shutil.rmtree(folder)


@pytest.fixture
def refusal(capsys):
    """Runs a command that must end with 2, and returns the one sentence that it says."""

    def run(*words):
        with pytest.raises(SystemExit, match="2"):
            main([*map(str, words)])
        output = capsys.readouterr().err
        *_, error = output.splitlines()
        assert error.startswith("cbam100: error: ")
        assert "Traceback" not in output
        return error

    return run


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(data_root, tmp_path_factory):
    """The run folder of a two-epoch fit."""
    folder = tmp_path_factory.mktemp("fit")
    with working_in(folder):
        main(["fit", *SMALL, f"--data.root={data_root}", "--trainer.max_epochs=2", "--model.restart_epochs=2"])
    return folder / "runs" / "default" / "version_0"
