"""Callbacks that users bring: files hold what was measured, tuners keep pretrained weights, a fault costs no step,
and a run that was stopped stays stopped."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules import ResNetCBAM
from scripts.main import main
from tests.conftest import SMALL

# 48 images in batches of 8: 6 steps an epoch
FIT = ["fit", *SMALL, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2"]
RUN = Path("runs/default/version_0")


def overlay(*callbacks):
    """A config file with these callbacks: pairs of a class's path and its arguments."""
    listed = [{"class_path": path, "init_args": arguments} for path, arguments in callbacks]
    Path("callbacks.yaml").write_text(json.dumps({"trainer": {"callbacks": listed}}))
    return ["--config=callbacks.yaml", "--run_name=default"]


def lightning(name, **arguments):
    return f"pytorch_lightning.callbacks.{name}", arguments


def metrics_of(path, root, capsys):
    capsys.readouterr()
    main(["validate", f"--ckpt_path={path}", f"--data.root={root}", "--data.num_workers=0"])
    found = re.findall(r"(val/\w+)\s*│\s*([\d.e-]+)", capsys.readouterr().out)
    return {name: float(value) for name, value in found}


def events(run=RUN):
    return [event["event"] for event in json.loads((run / "manifest.json").read_text())["events"]]


@pytest.mark.parametrize(
    "callback",
    [
        lightning("EMAWeightAveraging", decay=0.5),
        lightning("StochasticWeightAveraging", swa_lrs=1e-2, swa_epoch_start=1),
        *(
            pytest.param(
                lightning("ModelPruning", pruning_fn="l1_unstructured", amount=0.3, **options), marks=pytest.mark.slow
            )
            for options in ({}, {"make_pruning_permanent": False}, {"prune_on_train_epoch_end": False})
        ),
    ],
    ids=lambda pair: "-".join([pair[0].rpartition(".")[2], *map(str, pair[1].values())]),
)
@pytest.mark.filterwarnings("ignore:--trainer.max_epochs 3 ends inside")  # SWA adds an epoch
def test_both_files_hold_what_was_measured(callback, data_root, run_folder, capsys):
    main([*FIT, f"--data.root={data_root}", *overlay(callback)])
    best = json.loads((RUN / "manifest.json").read_text())["best"]
    measured = {name: value for name, value in best.items() if name.startswith("val/")}
    assert metrics_of(RUN / "checkpoints/best.ckpt", data_root, capsys) == measured
    assert metrics_of(RUN / "model.safetensors", data_root, capsys) == measured
    assert load_file(RUN / "model.safetensors").keys() == ResNetCBAM(12, backbone="resnet18").state_dict().keys()


@pytest.fixture
def pretrained(run_folder):
    """A file of weights with a head of another width, and its content."""
    torch.manual_seed(7)
    network = ResNetCBAM(1000, backbone="resnet18")
    save_file(network.state_dict(), "pretrained.safetensors")
    return network.state_dict()


class FirstWeights(Callback):
    """Keeps the trunk as it is when the first step is taken."""

    seen = None

    def on_train_start(self, trainer, pl_module):
        FirstWeights.seen = {name: value.clone() for name, value in pl_module.network.state_dict().items()}


@pytest.mark.parametrize(
    ("callback", "limit"),
    [
        (lightning("LearningRateFinder", num_training_steps=12, min_lr=1e-5, early_stop_threshold=None), []),
        (lightning("BatchSizeFinder", max_trials=2, steps_per_trial=1, init_val=4), ["--trainer.max_epochs=1"]),
        (lightning("EMAWeightAveraging"), ["--trainer.max_epochs=1"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step", "ignore:--trainer.max_epochs 1 ends inside")
def test_pretrained_weights_are_there_before_a_callback_runs(callback, limit, pretrained, data_root, capsys):
    first = ("tests.integration.test_lightnings_callbacks.FirstWeights", {})
    main(
        [*FIT, f"--data.root={data_root}", "--model.weights=pretrained.safetensors", *overlay(callback, first), *limit]
    )
    assert "weights: " in capsys.readouterr().out
    trunk = [name for name in pretrained if not name.startswith("fc.") and "num_batches" not in name]
    assert all(torch.equal(FirstWeights.seen[name], pretrained[name]) for name in trunk)
    assert events()[0] == "started"


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
def test_what_a_tuner_finds_is_the_runs(data_root, run_folder, capsys, caplog):
    tuners = overlay(
        lightning("BatchSizeFinder", max_trials=2, steps_per_trial=1),
        lightning("LearningRateFinder", num_training_steps=24, min_lr=1e-5, max_lr=0.1, early_stop_threshold=None),
    )
    command = [*FIT, f"--data.root={data_root}", *tuners, "--ckpt_path=last", "--trainer.max_epochs=3",
               "--model.restart_epochs=3"]  # fmt: skip
    main([*command, "--trainer.max_steps=6"])
    manifest = json.loads((RUN / "manifest.json").read_text())
    found = float(re.search("Learning rate set to (.*)", caplog.text)[1])
    size = int(re.search("will continue with full run using batch size (.*)", caplog.text)[1])
    assert (manifest["learning_rate"], manifest["batch_size"]) == (found, size)
    state = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["base_lrs"] == [found]
    # 48 images in the found size are more than 6 steps: no epoch is over, and the rate is the first
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == found
    caplog.clear()
    main([*command, "--trainer.max_steps=7"])
    main(command)  # goes on with them, and looks for none, however often
    assert "full run using" not in caplog.text
    assert "tuned earlier: learning rate" in capsys.readouterr().out
    ended = json.loads((RUN / "manifest.json").read_text())
    assert (ended["learning_rate"], ended["batch_size"]) == (found, size)
    assert events() == ["started", "finished", *2 * ["resumed", "finished"]]
    rate = 1e-5 + (found - 1e-5) * (1 + math.cos(math.pi * 2 / 3)) / 2  # of the third epoch of three
    numbers = EventAccumulator(str(RUN)).Reload().Scalars("lr")
    assert [number.step for number in numbers] == [0, 1, 2]
    assert numbers[-1].value == pytest.approx(rate)


def test_an_early_stopped_run_stays_stopped(data_root, run_folder, capsys):
    def command(patience):
        stop = lightning("EarlyStopping", monitor="train/loss", mode="max", patience=patience)
        return [*FIT, f"--data.root={data_root}", "--trainer.max_epochs=9", "--model.restart_epochs=9",
                "--ckpt_path=last", *overlay(stop)]  # fmt: skip

    main(command(1))
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file() and "tfevents" not in path.name}
    epochs = json.loads((RUN / "manifest.json").read_text())["events"][-1]["epoch"]
    assert epochs < 9
    capsys.readouterr()
    main(command(1))
    assert "this run was stopped early" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    main(command(9))  # what was typed counts, not the checkpoint's
    assert json.loads((RUN / "manifest.json").read_text())["events"][-1]["epoch"] == 9


def test_a_metric_that_nobody_logs_is_refused_before_training(data_root, run_folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(
            [
                *FIT,
                f"--data.root={data_root}",
                *overlay(lightning("LearningRateMonitor"), lightning("EarlyStopping", monitor="val_loss")),
            ]
        )
    error = capsys.readouterr().err
    assert "which is not logged: choose one of train/accuracy, train/loss, val/accuracy, " in error
    assert "EarlyStopping watches val_loss, which is not logged: choose one" in error
    assert not list(Path("runs").rglob("*.ckpt"))


def test_metrics_of_a_fitted_temperature_can_be_watched(data_root, run_folder, refusal):
    stop = overlay(lightning("EarlyStopping", monitor="val/nll_calibrated", mode="max", patience=1))
    main([*FIT, f"--data.root={data_root}", "--model.temperature=fit", *stop])
    assert "which is not logged" in refusal(*FIT, f"--data.root={data_root}", *stop)


@pytest.mark.parametrize("option", ["trunk_learning_rate_ratio=0.1", "layer_decay=0.5", "freeze_trunk_epochs=1"])
def test_rates_that_an_average_would_replace_are_refused(option, data_root, run_folder, refusal):
    average = overlay(lightning("StochasticWeightAveraging", swa_lrs=1e-2, swa_epoch_start=1))
    error = refusal(*FIT, f"--data.root={data_root}", f"--model.{option}", *average)
    assert f"--model.{option.replace('=', ' ')} cannot be combined with StochasticWeightAveraging" in error


def test_an_average_with_class_weights_is_of_the_weights_that_were_trained(data_root, run_folder):
    words = [*FIT, f"--data.root={data_root}", "--model.class_weights=balanced"]
    main([*words, "--run_name=alone"])
    main([*words, *overlay(lightning("EMAWeightAveraging", decay=0.5))])
    trained = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["current_model_state"]
    alone = torch.load("runs/alone/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(trained, alone, rtol=0, atol=0)


class Failing(Callback):
    """Raises once, in the hook that it is told."""

    hook = ""

    def __getattribute__(self, name):
        if name == Failing.hook and name:

            def fail(trainer, *args):
                if trainer.state.fn == "fit" and not trainer.sanity_checking and trainer.global_step >= 3:
                    raise RuntimeError(f"a fault of the user's in {name}")

            return fail
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "hook",
    [
        "on_train_batch_end",
        *(
            pytest.param(hook, marks=pytest.mark.slow)
            for hook in ("on_train_epoch_end", "on_validation_start", "on_validation_batch_end", "on_validation_end")
        ),
    ],
)
def test_a_fault_of_a_users_callback_costs_no_step(hook, data_root, run_folder, monkeypatch):
    late = hook == "on_train_epoch_end"
    stop = lightning("EarlyStopping", monitor="val/loss", patience=9, check_on_train_epoch_end=late)
    # Behind the one that fails, but not in a validation, in which averaged weights are not saved
    average = [] if "validation" in hook else [lightning("EMAWeightAveraging", decay=0.5)]
    failing = overlay(stop, ("tests.integration.test_lightnings_callbacks.Failing", {}), *average)
    command = [*FIT, f"--data.root={data_root}", "--best.every_n_minutes=0"]
    main([*command, *failing, "--run_name=whole"])
    monkeypatch.setattr(Failing, "hook", hook)
    with pytest.raises(RuntimeError, match="a fault of the user's"):
        main([*command, *failing])
    saved = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == (3 if hook == "on_train_batch_end" else 6)
    assert events() == ["started", "failed"]
    monkeypatch.setattr(Failing, "hook", "")
    main([*command, *failing, "--ckpt_path=last"])
    whole = Path("runs/whole/version_0")
    ended, expected = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (RUN, whole))
    for part in ("optimizer_states", "lr_schedulers"):
        assert str(ended[part]) == str(expected[part])
    assert all(torch.equal(ended["state_dict"][name], value) for name, value in expected["state_dict"].items())
    (stopping,) = (key for key in expected["callbacks"] if key.startswith("EarlyStopping"))
    assert str(ended["callbacks"][stopping]) == str(expected["callbacks"][stopping])
    best, expected_best = (json.loads((run / "manifest.json").read_text())["best"] for run in (RUN, whole))
    assert best == expected_best


def test_averaged_weights_are_resumed_to_the_bit(data_root, run_folder):
    average = overlay(lightning("EMAWeightAveraging", decay=0.5))
    command = [*FIT, f"--data.root={data_root}", *average, "--ckpt_path=last"]
    main([*command, "--run_name=whole"])
    main([*command, "--trainer.max_steps=4"])
    main([*command, "--trainer.max_steps=12"])
    whole = Path("runs/whole/version_0")
    ended, expected = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (RUN, whole))
    for part in ("state_dict", "current_model_state", "averaging_state"):
        assert ended[part].keys() == expected[part].keys()
        assert all(torch.equal(ended[part][name], value) for name, value in expected[part].items()), part
    assert not torch.equal(ended["state_dict"]["network.fc.weight"], ended["current_model_state"]["network.fc.weight"])


@pytest.mark.filterwarnings("ignore:--trainer.max_epochs 3 ends inside")  # SWA adds an epoch
def test_a_run_that_begins_something_at_epoch_starts_is_saved_between_epochs(data_root, run_folder, capsys):
    average = overlay(lightning("StochasticWeightAveraging", swa_lrs=1e-2, swa_epoch_start=1, annealing_epochs=1))
    command = [*FIT, f"--data.root={data_root}", *average, "--ckpt_path=last", "--best.every_n_steps=1"]
    main([*command, "--run_name=whole"])
    main([*command, "--trainer.max_steps=8"])
    assert torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    main(command)
    whole = Path("runs/whole/version_0")
    ended, expected = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (RUN, whole))
    assert all(torch.equal(ended["state_dict"][name], value) for name, value in expected["state_dict"].items())
    capsys.readouterr()
    main(command)  # it has done one epoch more than its max_epochs
    assert "has done its 3 epochs: nothing is left to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        (lightning("LearningRateFinder"), "LearningRateFinder can only tune a new run"),
        (lightning("BatchSizeFinder"), "BatchSizeFinder can only tune a new run"),
        (
            lightning("ModelPruning", pruning_fn="l1_unstructured"),
            "ModelPruning cannot be resumed exactly",
        ),
    ],
)
def test_what_would_make_another_run_of_a_resumed_one_is_refused(callback, sentence, data_root, run_folder, capsys):
    command = [*FIT, f"--data.root={data_root}", "--ckpt_path=last"]
    main([*command, "--trainer.max_steps=3"])
    before = {path: path.read_bytes() for path in RUN.rglob("*.*") if path.is_file()}
    with pytest.raises(SystemExit, match="2"):
        main([*command, *overlay(callback)])
    assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
