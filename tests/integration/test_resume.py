"""A run that was interrupted and resumed ends with the same bits as one that was not."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import CheckpointFile
from lightning_modules import focal_loss
from scripts.main import main
from tests.conftest import SMALL, working_in

TIMES = {"seconds", "waited", "folder"}  # the only state that two runs need not share
# 48 images in batches of 8: 6 steps an epoch. Two epochs are one cycle of the schedule.
FIT = [*SMALL, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2", "--best.every_n_steps=1",
       "--insight.every_n_epochs=2"]  # fmt: skip


def fit(root, *options):
    main(["fit", *FIT, f"--data.root={root}", *options])


def load(path):
    return torch.load(path, weights_only=True)


def differences(a, b, place=""):
    """Where two nested states differ by a bit."""
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{place}: {a.keys() ^ b.keys()}"]
        return [x for key in a if key not in TIMES for x in differences(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, list | tuple):
        return [x for i, pair in enumerate(zip(a, b, strict=True)) for x in differences(*pair, f"{place}/{i}")]
    return [] if (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b) else [place]


@contextlib.contextmanager
def kept_states(folder):
    """Works in a folder, and keeps ``last.ckpt`` after each step as its ``saved/<step>.ckpt``."""
    (folder / "saved").mkdir()
    save = CheckpointFile.save_checkpoint

    def save_and_keep(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path)
        if Path(path).name == "last.ckpt":
            shutil.copy(path, folder / "saved" / f"{checkpoint['global_step']}.ckpt")

    with working_in(folder) as patch:
        patch.setattr(CheckpointFile, "save_checkpoint", save_and_keep)
        yield


def fit_and_keep(folder, root, *options):
    """Returns the folder of a run with its ``kept_states``."""
    with kept_states(folder):
        fit(root, *options)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(data_root, new_folder):
    return fit_and_keep(new_folder("uninterrupted"), data_root)


def numbers(run_folder):
    """What TensorBoard shows against epochs, without times."""
    events = EventAccumulator(str(run_folder)).Reload()
    clocked = ("second", "wait", "hp")
    tags = [tag for tag in events.Tags()["scalars"] if not any(word in tag for word in clocked)]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def some_of(states, kept):
    return [pytest.param(state, marks=[] if state in kept else pytest.mark.slow) for state in states]


@pytest.mark.parametrize("saved", some_of(range(1, 12), {3, 6}))  # steps of 12
def test_every_saved_state_leads_to_the_same_end(saved, uninterrupted, data_root, run_folder):
    """Inside an epoch and at its end."""
    fit(data_root, f"--ckpt_path={uninterrupted / 'saved' / f'{saved}.ckpt'}")
    expected = uninterrupted / "runs/default/version_0"
    ended = Path("runs/default/version_0")
    assert differences(load(expected / "checkpoints/last.ckpt"), load(ended / "checkpoints/last.ckpt")) == []
    best = json.loads((expected / "manifest.json").read_text())["best"]
    assert json.loads((ended / "manifest.json").read_text())["best"] == best
    done = numbers(ended)
    for tag, values in numbers(expected).items():
        assert done[tag][-1] == values[-1], tag
    assert [step for step, _ in done["lr"]] == list(range(saved // 6, 2))  # no epoch twice, none left out


@pytest.mark.parametrize("saved", some_of((3, 6, 9), {3}))
def test_with_two_workers_too(saved, uninterrupted, data_root, run_folder):
    fit(data_root, f"--ckpt_path={uninterrupted / 'saved' / f'{saved}.ckpt'}", "--data.num_workers=2")
    ended = load("runs/default/version_0/checkpoints/last.ckpt")
    expected = load(uninterrupted / "runs/default/version_0/checkpoints/last.ckpt")
    for part in ("datamodule_hyper_parameters", "hyper_parameters"):  # which hold the number of workers
        del ended[part], expected[part]
    assert differences(expected, ended) == []


def test_a_run_that_stops_inside_an_epoch_goes_on_there(uninterrupted, data_root, run_folder):
    fit(data_root, "--trainer.max_steps=8", "--best.every_n_steps=0")  # as --trainer.max_time may
    fit(data_root, "--ckpt_path=last")
    expected, ended = uninterrupted / "runs/default/version_0", Path("runs/default/version_0")
    assert differences(*(load(folder / "checkpoints/last.ckpt") for folder in (expected, ended))) == []
    assert numbers(ended) == numbers(expected)


@pytest.mark.parametrize("limits", [(6, 10, 12), (8, 12)])
def test_limits_of_steps_lead_to_the_same_end(limits, uninterrupted, data_root, run_folder):
    for steps in limits:
        fit(data_root, f"--trainer.max_steps={steps}", "--best.every_n_steps=0", "--ckpt_path=last")
    expected, ended = uninterrupted / "runs/default/version_0", Path("runs/default/version_0")
    assert differences(*(load(folder / "checkpoints/last.ckpt") for folder in (expected, ended))) == []
    assert numbers(ended) == numbers(expected)
    best = json.loads((expected / "manifest.json").read_text())["best"]
    assert json.loads((ended / "manifest.json").read_text())["best"] == best


def test_a_checkpoint_that_cannot_be_resumed_is_one_sentence(uninterrupted, data_root, run_folder, capsys):
    whole = load(uninterrupted / "saved" / "3.ckpt")
    states = whole["state_dict"]
    spoilt = [
        {name: value for name, value in whole.items() if name != "exact_resume"},
        {name: value for name, value in whole.items() if name != "optimizer_states"},
        {**whole, "state_dict": {name: value for name, value in states.items() if name != "network.fc.bias"}},
        {**whole, "state_dict": {**states, "network.fc.bias": torch.zeros(7)}},
    ]
    for content in spoilt:
        torch.save(content, "spoilt.ckpt")
        with pytest.raises(SystemExit, match="2"):
            fit(data_root, "--ckpt_path=spoilt.ckpt")
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cbam100: error: ")]
    assert "the checkpoint cannot be resumed, as it lacks exact_resume" in errors[0]
    assert "the checkpoint cannot be resumed, as it lacks optimizer_states" in errors[1]
    assert all("its tensors do not match its options" in error for error in errors[2:])


def test_fewer_epochs_than_done_are_refused_and_a_finished_run_says_so(uninterrupted, data_root, run_folder, capsys):
    done = f"--ckpt_path={uninterrupted / 'saved' / '12.ckpt'}"
    fit(data_root, done)
    assert "has done its 2 epochs: nothing is left to do" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        fit(data_root, done, "--trainer.max_epochs=1")
    assert "--trainer.max_epochs is 1, but " in capsys.readouterr().err


def test_last_goes_on_in_its_run_folder(uninterrupted, data_root, run_folder, capsys):
    fit(data_root, "--ckpt_path=last", "--trainer.max_steps=6")
    assert "no last.ckpt in runs/default yet: starting a new run" in capsys.readouterr().out
    fit(data_root, "--ckpt_path=last")
    assert [path.name for path in Path("runs/default").iterdir()] == ["version_0"]
    expected, ended = uninterrupted / "runs/default/version_0", Path("runs/default/version_0")
    assert numbers(ended) == numbers(expected)
    assert differences(*(load_file(folder / "model.safetensors") for folder in (ended, expected))) == []
    events = json.loads((ended / "manifest.json").read_text())["events"]
    assert [(event["event"], event["epoch"], event["step"]) for event in events] == [
        ("started", 0, 0), ("finished", 1, 6), ("resumed", 1, 6), ("finished", 2, 12),
    ]  # fmt: skip
    assert events[2]["checkpoint"] == "runs/default/version_0/checkpoints/last.ckpt"
    # An epoch that was logged but not saved is logged again, and shown once.
    shutil.copy(uninterrupted / "saved" / "6.ckpt", ended / "checkpoints" / "last.ckpt")
    fit(data_root, "--ckpt_path=last")
    assert [step for step, _ in numbers(ended)["lr"]] == [0, 1]


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(
    uninterrupted, data_root, run_folder, monkeypatch, capsys
):
    losses = []

    def spoilt(logits, targets, **options):
        losses.append(focal_loss(logits, targets, **options))
        return losses[-1] * torch.nan if len(losses) == 5 else losses[-1]

    monkeypatch.setattr("lightning_modules.classifier.focal_loss", spoilt)
    with pytest.raises(SystemExit, match="2"):
        fit(data_root, "--trainer.num_sanity_val_steps=0")
    error = capsys.readouterr().err
    assert "cbam100: error: the loss is nan in epoch 1 at batch 5, of " in error
    assert len(set(re.findall(rf"{data_root}/train/\d+/\w+\.jpg", error))) == 8
    folder = Path("runs/default/version_0")
    kept = load(folder / "checkpoints/last.ckpt")
    assert differences(load(uninterrupted / "saved" / "4.ckpt"), kept) == []  # after batch 4
    assert json.loads((folder / "manifest.json").read_text())["events"][-1]["event"] == "failed"


def test_other_data_is_refused(uninterrupted, data_root, run_folder, tmp_path, capsys):
    root = Path(shutil.copytree(data_root, tmp_path / "other"))
    next((root / "train" / "3").iterdir()).unlink()
    with pytest.raises(SystemExit, match="2"):
        fit(root, f"--ckpt_path={uninterrupted / 'saved' / '3.ckpt'}")
    assert "cbam100: error: this run differs from the checkpoint's (images of train" in capsys.readouterr().err
