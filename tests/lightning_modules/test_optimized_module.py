"""Rates, groups and the frozen start through the real command: 48 images in batches of 8 are 6 batches an epoch."""

import itertools
import json
import math
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_modules import ImageClassifier
from scripts.main import main
from tests.conftest import SMALL

FIT = ["fit", *SMALL, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2"]
COSINE = ["--model.schedule=cosine", "--model.warmup_epochs=0.5", "--model.trunk_learning_rate_ratio=0.1"]
ACCUMULATING = {
    "class_path": "pytorch_lightning.callbacks.GradientAccumulationScheduler",
    "init_args": {"scheduling": {0: 1, 1: 4}},
}


@pytest.fixture
def rates(monkeypatch):
    """The rates of each group in each optimiser step."""
    found = []

    def note(self, optimizer):
        found.append([group["lr"] for group in optimizer.param_groups])

    monkeypatch.setattr(ImageClassifier, "on_before_optimizer_step", note)
    return found


@pytest.mark.parametrize(
    ("options", "warmup", "steps"),
    [
        ([], 3, 6 + 6),
        pytest.param(["--trainer.accumulate_grad_batches=2"], round(0.5 * 3), 3 + 3, marks=pytest.mark.slow),
        (["--trainer.accumulate_grad_batches=4"], 1, 2 + 2),  # the second step of an epoch is of 2 batches
        (["--trainer.limit_train_batches=0.84", "--trainer.accumulate_grad_batches=2"], round(0.5 * 3), 3 + 3),
        (["--trainer.limit_train_batches=3"], round(0.5 * 3), 3 + 3),
        (["--trainer.max_steps=7"], 3, 7),
        pytest.param(["--trainer.max_epochs=-1", "--trainer.max_steps=9"], 3, 9, marks=pytest.mark.slow),
        (["--data.batch_size=64"], 0, 1 + 1),  # half a step of warm-up rounds to none
        (["--config=accumulating.yaml", "--run_name=default"], 3, 6 + 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_step_has_the_rate_of_the_closed_form(options, warmup, steps, rates, data_root, run_folder, capsys):
    Path("accumulating.yaml").write_text(json.dumps({"trainer": {"callbacks": ACCUMULATING}}))
    main([*FIT, *COSINE, f"--data.root={data_root}", *options])
    start = max(warmup - 1, 0)  # the step at the peak
    expected = [(step + 1) / warmup for step in range(start)]
    angles = [math.pi * step / (steps - 1 - start) for step in range(steps - start)]
    head = [1e-3 * share for share in expected] + [1e-5 + (1e-3 - 1e-5) * (1 + math.cos(x)) / 2 for x in angles]
    trunk = [1e-4 * share for share in expected] + [1e-6 + (1e-4 - 1e-6) * (1 + math.cos(x)) / 2 for x in angles]
    assert [rate for rate, _ in rates] == pytest.approx(head, rel=1e-9)
    assert [rate for _, rate in rates] == pytest.approx(trunk, rel=1e-9)
    assert rates[-1] == pytest.approx([1e-5, 1e-6], rel=1e-15)
    assert f"schedule: one cosine over {steps} steps, {warmup} of them warm-up" in capsys.readouterr().out


def test_the_groups_are_printed(wide_resnet18, data_root, run_folder, capsys):
    main([*FIT, "--trainer.max_epochs=1", *COSINE, f"--data.root={data_root}", "--model.weight_decay_on=matrices",
          "--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1"])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("optimiser: AdamW, fused")
    found = [re.split(r" {2,}", line) for line in lines[start + 1 : start + 5]]
    # A resnet18 has 11,176,512 parameters without its head: 11,166,912 in 20 convolutions and 9,600 in 20 norms. Four
    # gates of C = 64 to 512 channels, reduced by 128, have 2 · C · max(1, C / 128) and 9 + 1 numbers; the head has 512
    # for each of 12 classes and a bias.
    gates = 2 * (64 * 1 + 128 * 1 + 256 * 2 + 512 * 4) + 4 * 10
    assert found == [
        ["head", "1 tensors", f"{512 * 12:,} parameters", "learning rate 0.001", "weight decay 0.0001"],
        ["head, no decay", "17 tensors", f"{gates + 12:,} parameters", "learning rate 0.001", "weight decay 0"],
        ["trunk", "20 tensors", "11,166,912 parameters", "learning rate 0.0001", "weight decay 0.0001"],
        ["trunk, no decay", "40 tensors", "9,600 parameters", "learning rate 0.0001", "weight decay 0"],
    ]


def test_an_optimiser_that_must_clip_float16_gradients_is_not_fused_and_says_so(monkeypatch):
    monkeypatch.setattr(Trainer, "precision", property(lambda self: "16-mixed"))  # which no CPU has
    model = ImageClassifier(["1", "2"], backbone="resnet18", weights="none")
    model.trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", gradient_clip_val=1)
    optimizer = model.configure_optimizers()["optimizer"]
    assert not optimizer.defaults["fused"]
    model.trainer.strategy.optimizers = [optimizer]
    assert model._describe() == [
        "optimiser: AdamW, not fused, as float16 gradients are unscaled before they are clipped"
    ]


def test_a_frozen_trunk_does_not_move_and_learns_afterwards(data_root, run_folder, monkeypatch):
    states, modes = [], []

    def note(self):
        states.append({name: value.clone() for name, value in self.network.state_dict().items()})
        modes.append({module.training for module in self.network.modules() if isinstance(module, _BatchNorm)})
        assert all(parameter.requires_grad for parameter in self.network.parameters())

    monkeypatch.setattr(ImageClassifier, "on_train_batch_end", lambda self, *_: note(self))
    main([*FIT, f"--data.root={data_root}", "--model.freeze_trunk_epochs=1", "--trainer.limit_train_batches=2"])
    assert modes == [{False}, {False}, {True}, {True}]
    names = set(states[0])
    head = {name for name in names if name.startswith(("fc.", "attention."))}
    moved = [{name for name in names if not torch.equal(a[name], b[name])} for a, b in itertools.pairwise(states)]
    assert moved[0] == head
    assert moved[1] == moved[2] == names
    # A new network's norms, as their statistics show
    assert all((value == ("var" in name)).all() for name, value in states[1].items() if "running" in name)


def test_a_run_may_be_shorter_than_its_start_if_it_is_a_trial(data_root, run_folder, capsys):
    main([*FIT, *COSINE, f"--data.root={data_root}", "--model.freeze_trunk_epochs=3", "--model.warmup_epochs=5",
          "--trainer.fast_dev_run=true"])  # fmt: skip
    assert "schedule: one cosine over 1 steps, 1 of them warm-up" in capsys.readouterr().out


def test_what_tuners_find_reaches_every_group_and_the_schedule(data_root, run_folder, rates, caplog):
    tuners = [
        ("BatchSizeFinder", {"max_trials": 2, "steps_per_trial": 1}),
        ("LearningRateFinder", {"num_training_steps": 24, "min_lr": 1e-5, "max_lr": 0.1, "early_stop_threshold": None}),
    ]
    listed = [{"class_path": f"pytorch_lightning.callbacks.{name}", "init_args": options} for name, options in tuners]
    Path("tuners.yaml").write_text(json.dumps({"trainer": {"callbacks": listed}}))
    main([*FIT, *COSINE, f"--data.root={data_root}", "--config=tuners.yaml", "--model.freeze_trunk_epochs=1"])
    found = float(re.search("Learning rate set to (.*)", caplog.text)[1])
    size = int(re.search("will continue with full run using batch size (.*)", caplog.text)[1])
    steps = 48 // size
    warmup = round(0.5 * steps)
    start = max(warmup - 1, 0)
    run = rates[-2 * steps :]
    assert run[start][0] == found
    assert [trunk for _, trunk in run[:steps]] == steps * [0.0]
    assert run[steps:] == [pytest.approx([rate, 0.1 * rate], rel=1e-9) for rate, _ in run[steps:]]
    assert run[-1] == pytest.approx([1e-5, 1e-6], rel=1e-15)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["schedule=cosine", "warmup_epochs=2"], "--model.warmup_epochs 2 must be less than --trainer.max_epochs 2"),
        (["freeze_trunk_epochs=3"], "--model.freeze_trunk_epochs 3 must be less than --trainer.max_epochs 2"),
        (["warmup_epochs=1"], "--model.warmup_epochs 1 has no effect with --model.schedule warm_restarts: choose"),
        (["warmup_epochs=-1"], "--model.warmup_epochs must be a finite number of at least 0, got -1"),
        (["warmup_epochs=.inf"], "--model.warmup_epochs must be a finite number of at least 0, got inf"),
        (["freeze_trunk_epochs=-1"], "--model.freeze_trunk_epochs must be a finite number of at least 0, got -1"),
        (["trunk_learning_rate_ratio=10"], "--model.trunk_learning_rate_ratio must be between 0 and 1, got 10"),
        (["trunk_learning_rate_ratio=.nan"], "--model.trunk_learning_rate_ratio must be between 0 and 1, got nan"),
        (["layer_decay=0"], "--model.layer_decay must be above 0 and at most 1, got 0"),
        (["layer_decay=.nan"], "--model.layer_decay must be above 0 and at most 1, got nan"),
        (["learning_rate=1e-6"], "--model.min_learning_rate 1e-05 is above --model.learning_rate 1e-06, so that"),
    ],
)
def test_options_that_no_run_can_have_are_refused(options, sentence, refusal, data_root, run_folder):
    assert sentence in refusal(*FIT, f"--data.root={data_root}", *(f"--model.{option}" for option in options))


@pytest.mark.parametrize(
    ("option", "schedule"),
    [("warmup_epochs", "cosine"), ("freeze_trunk_epochs", "cosine"), ("freeze_trunk_epochs", "warm_restarts")],
)
def test_a_start_as_long_as_the_steps_of_a_run_is_refused(option, schedule, refusal, data_root, run_folder):
    words = [f"--model.schedule={schedule}", f"--model.{option}=1", "--trainer.max_steps=6"]
    sentence = f"--model.{option} 1 is 6 steps, but the whole run is 6: lower it, or train longer"
    assert sentence in refusal(*FIT, f"--data.root={data_root}", *words)


@pytest.mark.parametrize("limit", ["-1", "null"])
def test_a_run_without_an_end_has_no_cosine(limit, refusal, data_root, run_folder):
    words = ["--model.schedule=cosine", f"--trainer.max_epochs={limit}"]
    assert "the length of the run must be known for --model.schedule cosine, but no limit is given" in refusal(
        *FIT, f"--data.root={data_root}", *words
    )
