import os
from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from callbacks.run.run_folder import RunFolder
from datamodules.files.errors import UserError
from scripts import run_logger
from scripts.run_logger import open_logger, require_run_name
from tests.conftest import SMALL

VARY = "--vary=model.loss=focal,cross_entropy"


def begin(run_name="x", ckpt_path=None):
    return open_logger(run_name, ckpt_path, epochs=0, data_root=Path("data"))


def test_two_runs_that_begin_together_get_a_folder_each(run_folder, monkeypatch):
    monkeypatch.setattr(TensorBoardLogger, "_get_next_version", lambda self: 3)  # both have looked before either writes
    folders = [Path(begin().log_dir) for _ in range(2)]
    assert folders == [Path("runs/x/version_3"), Path("runs/x/version_4")]
    assert all(folder.is_dir() for folder in folders)
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # which gets the first process's by Trainer.log_dir
    _ = begin().log_dir, begin().experiment
    assert len(list(Path("runs/x").iterdir())) == 2


@pytest.mark.parametrize(
    "path", ["/last.ckpt", "last.ckpt", "runs/x/version_0/last.ckpt", "runs/x/y/checkpoints/last.ckpt"]
)
def test_a_checkpoint_elsewhere_is_no_runs_last(path, run_folder):
    assert RunFolder.of_last(Path(path)) is None


def test_a_folder_in_which_a_run_is_at_work_is_not_resumed(run_folder):
    alive = begin()
    assert alive.experiment is not None
    last = Path(alive.log_dir, "checkpoints", "last.ckpt")
    last.parent.mkdir()
    last.touch()
    before = sorted(os.listdir(alive.log_dir))
    with pytest.raises(UserError, match="another process is using runs/x/version_0"):
        begin(ckpt_path=str(last))
    assert sorted(os.listdir(alive.log_dir)) == before
    for _ in range(2):  # one after the other they may
        alive.finalize("success")
        alive = begin(ckpt_path=str(last))
        assert Path(alive.log_dir) == Path("runs/x/version_0")
        assert alive.experiment is not None
    alive.finalize("success")


def test_a_file_system_without_locks(run_folder, monkeypatch):
    def unsupported(*_):
        raise OSError("no locks")

    monkeypatch.setattr("fcntl.flock", unsupported)
    logger = begin()
    assert logger.experiment is not None
    logger.finalize("success")


def test_a_refused_start_leaves_no_folder(data_root, run_folder, refusal):
    words = ["fit", *SMALL, f"--data.root={data_root}", "--trainer.max_epochs=1", "--model.restart_epochs=1"]
    assert "0.10 MB" in refusal(*words, "--size_budget.limit_mb=0.1")
    assert list(Path("runs/default").iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/x", "", "a/../../b", "a/./b", "a//b", "a\nb", "a\0b"])
@pytest.mark.parametrize(
    "words", [["fit", "--run_name"], ["ablate", "--vary=model.loss=focal,cross_entropy", "--name"]]
)
def test_a_run_name_leads_to_a_folder_below_runs(words, name, data_root, run_folder, refusal):
    *command, option = words
    error = refusal(*command, f"{option}={name}", *SMALL, f"--data.root={data_root}")
    assert f"{option} must name a folder below runs/, without .. or control characters, got {name!r}" in error
    assert os.listdir(run_folder) == []


def test_a_run_name_leads_nowhere_else_on_windows(monkeypatch):
    monkeypatch.setattr(run_logger, "NOT_IN_A_NAME", '\\:*?"<>|')
    require_run_name("ablation/model.loss=focal,cross_entropy/seed_1", "--run_name")
    for name in ("..\\x", "C:x", "a|b"):
        with pytest.raises(UserError, match=r"without \.\., .* or control characters, got '.*: choose another"):
            require_run_name(name, "--run_name")


def test_no_run_folder_among_the_images(data_root, run_folder, monkeypatch, refusal):
    place = run_folder / "root" / "train"
    for path in (place / "a", place / "b"):
        path.mkdir(parents=True)
        (path / "x.jpg").write_bytes(next((data_root / "train/0").iterdir()).read_bytes())
        (path / "y.jpg").write_bytes(next((data_root / "train/1").iterdir()).read_bytes())
    monkeypatch.chdir(place)
    for command in (["fit"], ["ablate", VARY]):
        assert "whose files are data" in refusal(*command, *SMALL, "--data.root=..")
    assert sorted(os.listdir(place)) == ["a", "b"]
