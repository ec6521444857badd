"""Runs that end elsewhere than at an epoch's end, or without a validation: what is exported, what a resume does."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.main import main
from tests.conftest import SMALL

# 48 images in batches of 8: 6 steps an epoch
FIT = ["fit", *SMALL, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2",
       "--best.every_n_minutes=0"]  # fmt: skip
RUN = Path("runs/default/version_0")


def manifest(run=RUN):
    return json.loads((run / "manifest.json").read_text())


def header(run=RUN):
    with safe_open(run / "model.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["metrics"])


def scalars(run=RUN):
    events = EventAccumulator(str(run)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def clock(monkeypatch):
    """Lightning's timer takes a second for each look at the clock, which it has at the start and after each batch."""
    seconds = itertools.count()
    timer = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("pytorch_lightning.callbacks.timer.time", timer)


def test_a_stop_inside_an_epoch_leaves_a_partial_best_that_the_first_whole_epoch_replaces(
    clock, data_root, run_folder, capsys
):
    command = [*FIT, f"--data.root={data_root}", "--ckpt_path=last"]
    main([*command, "--run_name=whole"])
    main([*command, "--trainer.max_time=00:00:00:04"])
    assert manifest()["events"][-1]["step"] == 4
    best = manifest()["best"]
    assert best["partial"]
    assert header() == best
    capsys.readouterr()

    content = {path: path.read_bytes() for path in (RUN / "model.safetensors", RUN / "checkpoints/last.ckpt")}
    main([*command, "--trainer.max_time=00:00:00:04"])  # as a queue would
    assert "has used up its time (0:00:0" in (out := capsys.readouterr().out)
    assert "to continue, raise --trainer.max_time" in out
    assert {path: path.read_bytes() for path in content} == content

    main([*command, "--trainer.max_time=01:00:00:00"])
    whole = Path("runs/whole/version_0")
    assert manifest()["best"] == header() == manifest(whole)["best"]
    ended, expected = (load_file(run / "model.safetensors") for run in (RUN, whole))
    assert all(torch.equal(ended[name], value) for name, value in expected.items())


def test_a_stop_between_the_batches_of_a_step_waits_for_the_step(clock, data_root, run_folder):
    main([*FIT, f"--data.root={data_root}", "--trainer.max_time=00:00:00:03", "--trainer.accumulate_grad_batches=2"])
    state = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 4


@pytest.mark.parametrize(
    ("options", "partial"),
    [
        (["--trainer.max_steps=3"], True),
        (["--trainer.check_val_every_n_epoch=5"], False),
    ],
)
def test_a_run_without_a_validation_gets_one_at_its_end(options, partial, data_root, run_folder, capsys):
    main([*FIT, f"--data.root={data_root}", *options])
    best = manifest()["best"]
    assert best.get("partial", False) == partial
    assert header() == best
    assert best["epoch"] == (0 if partial else 1)
    assert scalars()["val/accuracy"] == [(best["epoch"], pytest.approx(best["val/accuracy"]))]
    main(["validate", f"--ckpt_path={RUN / 'model.safetensors'}", f"--data.root={data_root}", "--data.num_workers=0"])
    assert f"{best['val/loss']:.6f}"[:7] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--trainer.limit_val_batches=0", "leaves no validation images to choose the best weights by"),
        ("--trainer.val_check_interval=1", "validates inside epochs"),  # after every batch
        ("--trainer.val_check_interval=0.5", "validates inside epochs"),
    ],
)
def test_a_validation_that_does_not_choose_the_best_is_refused(option, sentence, data_root, run_folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*FIT, f"--data.root={data_root}", option])
    assert sentence in capsys.readouterr().err


def test_every_batch_of_an_epoch_is_one(data_root, run_folder):
    main([*FIT, f"--data.root={data_root}", "--trainer.val_check_interval=1.0"])
    assert [step for step, _ in scalars()["val/accuracy"]] == [0, 1]


def test_early_stopping_draws_the_last_epoch(data_root, run_folder):
    stop = {"class_path": "pytorch_lightning.callbacks.EarlyStopping",
            "init_args": {"monitor": "train/loss", "mode": "max", "patience": 1}}  # fmt: skip
    Path("stop.yaml").write_text(json.dumps({"trainer": {"callbacks": [stop]}}))
    drawn = [option for option in FIT if "insight" not in option]
    main([*drawn, f"--data.root={data_root}", "--config=stop.yaml", "--run_name=default", "--trainer.max_epochs=9",
          "--model.restart_epochs=9"])  # fmt: skip
    events = EventAccumulator(str(RUN)).Reload()
    last = manifest()["events"][-1]["epoch"] - 1
    assert last < 8
    assert [event.step for event in events.Images("val/confusion")][-1] == last


def test_a_limit_of_steps_that_is_reached_is_told_and_the_best_stays(data_root, run_folder, capsys):
    command = [*FIT, f"--data.root={data_root}", "--trainer.max_steps=3", "--ckpt_path=last"]
    main(command)
    best, weights = manifest()["best"], load_file(RUN / "model.safetensors")
    capsys.readouterr()
    main(command)
    assert "has done its 3 steps: nothing is left to do; raise --trainer.max_steps to go on" in capsys.readouterr().out
    measured = {name: value for name, value in best.items() if not name.startswith("train/")}
    assert {name: value for name, value in manifest()["best"].items() if not name.startswith("train/")} == measured
    assert all(torch.equal(value, weights[name]) for name, value in load_file(RUN / "model.safetensors").items())
    assert scalars()["val/accuracy"] == [(0, pytest.approx(best["val/accuracy"]))]
