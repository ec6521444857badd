"""The average of the weights is what is validated, chosen and exported, and a resume goes on with both to the bit."""

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from safetensors.torch import load_file

from datamodules import ImageFolderDataModule
from lightning_modules import ImageClassifier
from scripts.main import main
from tests.conftest import SMALL
from tests.integration.test_lightnings_callbacks import lightning, metrics_of, overlay
from tests.integration.test_resume import differences, kept_states, load, some_of

DECAY = 0.3
# 48 images in batches of 8, two to a step: 3 steps an epoch
FIT = ["fit", *SMALL, "--data.batch_size=8", "--trainer.accumulate_grad_batches=2", "--trainer.max_epochs=2",
       "--model.restart_epochs=2", "--best.every_n_steps=1", f"--model.ema_decay={DECAY}"]  # fmt: skip
RUN = Path("runs/default/version_0")
LAST = RUN / "checkpoints/last.ckpt"


class Weights(Callback):
    """Keeps the weights before the first step and after each, as they are trained."""

    seen = ()

    def on_train_start(self, trainer, pl_module):
        Weights.seen = [self.state(pl_module)]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == len(Weights.seen):
            Weights.seen.append(self.state(pl_module))

    def state(self, pl_module):
        return {name: value.clone() for name, value in pl_module.network.state_dict().items()}


WATCHED = ("tests.integration.test_weight_average.Weights", {})


def closed_form(states, decay=DECAY):
    """The average in float64: each state's share is what its own update gave it, times the decays of later ones."""
    decays = [min(decay, (1 + t) / (10 + t)) for t in range(len(states) - 1)]
    shares = [math.prod(decays), *((1 - d) * math.prod(decays[t + 1 :]) for t, d in enumerate(decays))]
    return {
        name: sum(share * state[name].double() for share, state in zip(shares, states, strict=True))
        if states[0][name].is_floating_point()
        else states[-1][name]
        for name in states[0]
    }


def require_average(checkpoint, states, decay=DECAY):
    """Both sets of weights are in the checkpoint of the last of these states."""
    assert checkpoint["ema"]["updates"] == len(states) - 1
    assert differences(checkpoint["ema"]["trained"], {f"network.{name}": x for name, x in states[-1].items()}) == []
    for name, exact in closed_form(states, decay).items():
        average = checkpoint["state_dict"][f"network.{name}"]
        torch.testing.assert_close(average.to(exact.dtype), exact, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def whole(data_root, new_folder):
    """The folder of a run with its ``kept_states``, and the trained weights after each step."""
    folder = new_folder("whole")
    with kept_states(folder):
        main([*FIT, f"--data.root={data_root}", *overlay(WATCHED)])
    return folder, Weights.seen


def test_every_checkpoint_holds_the_average_and_the_trained_weights(whole):
    folder, states = whole
    assert len(states) == 7
    for step in range(1, 7):
        require_average(load(folder / "saved" / f"{step}.ckpt"), states[: step + 1])


def test_the_average_is_what_is_measured_and_exported(whole, data_root, capsys):
    folder, states = whole
    best = json.loads((folder / RUN / "manifest.json").read_text())["best"]
    checkpoint, exported = load(folder / RUN / "checkpoints/best.ckpt"), load_file(folder / RUN / "model.safetensors")
    require_average(checkpoint, states[: 1 + 3 * (best["epoch"] + 1)])
    average = {name.removeprefix("network."): value for name, value in checkpoint["state_dict"].items()}
    assert differences(exported, average) == []
    measured = {name: value for name, value in best.items() if name.startswith("val/")}
    assert metrics_of(folder / RUN / "checkpoints/best.ckpt", data_root, capsys) == measured
    assert metrics_of(folder / RUN / "model.safetensors", data_root, capsys) == measured


@pytest.mark.parametrize("step", some_of(range(1, 6), {2, 3}))  # inside an epoch and at its end
def test_both_are_resumed_to_the_bit(step, whole, data_root, run_folder):
    folder, _ = whole
    main([*FIT, f"--data.root={data_root}", f"--ckpt_path={folder / 'saved' / f'{step}.ckpt'}"])
    assert differences(load(folder / LAST), load(LAST)) == []
    bests = [json.loads((run / "manifest.json").read_text())["best"] for run in (folder / RUN, RUN)]
    assert bests[0] == bests[1]


@pytest.mark.slow
def test_64_bits_are_resumed_to_the_bit(data_root, run_folder):
    words = [*FIT, f"--data.root={data_root}", "--trainer.precision=64-true"]
    main([*words, "--run_name=whole"])
    main([*words, "--trainer.max_steps=2"])
    main([*words, "--ckpt_path=last"])
    assert differences(load("runs/whole/version_0/checkpoints/last.ckpt"), load(LAST)) == []


def test_a_resumed_average_begins_on_the_device_that_the_network_moves_to():
    model = ImageClassifier(["a", "b"], "resnet18", "none", ema_decay=DECAY)
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    model._trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), strategy=strategy)
    assert all(x.is_meta for x in model._current_average().averaged.parameters())


class Disturbing(Callback):
    """Raises, or sends a signal to its own process, in a hook of the first epoch's validation."""

    hook, act = "", None

    def __getattribute__(self, name):
        if name == Disturbing.hook and name:

            def disturb(trainer, *args):
                if trainer.global_step == 3 and not trainer.sanity_checking:
                    Disturbing.act()

            return disturb
        return super().__getattribute__(name)


def fail():
    raise RuntimeError("a fault of the user's")


def interrupt():
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("hook", "act", "raised"),
    [
        ("on_validation_batch_end", fail, RuntimeError),
        pytest.param("on_validation_start", fail, RuntimeError, marks=pytest.mark.slow),
        pytest.param("on_validation_end", fail, RuntimeError, marks=pytest.mark.slow),
        ("on_validation_batch_end", interrupt, SystemExit),
    ],
)
def test_nothing_that_happens_in_a_validation_mixes_them_up(
    hook, act, raised, whole, data_root, run_folder, monkeypatch
):
    folder, states = whole
    monkeypatch.setattr(Disturbing, "hook", hook)
    monkeypatch.setattr(Disturbing, "act", act)
    command = [*FIT, f"--data.root={data_root}", *overlay((f"{__name__}.Disturbing", {}))]
    with pytest.raises(raised):
        main([*command, "--best.every_n_steps=0"])
    require_average(load(LAST), states[:4])
    monkeypatch.setattr(Disturbing, "hook", "")
    main([*command, "--ckpt_path=last"])
    assert differences(load(folder / LAST), load(LAST)) == []


def test_auto_averages_over_a_tenth_of_the_run(data_root, run_folder):
    steps = 2 * 48 // 4  # of 4 images
    words = ["--data.batch_size=4", "--trainer.accumulate_grad_batches=1", "--model.ema_decay=auto"]
    main([*FIT, f"--data.root={data_root}", *overlay(WATCHED), *words, "--best.every_n_steps=0"])
    require_average(load(LAST), Weights.seen, decay=1 - 10 / steps)  # which caps the growing decay from step 13 on
    assert ImageClassifier(["a", "b"], "resnet18", ema_decay="auto").needs_length == ["--model.ema_decay auto"]


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
def test_what_a_tuner_tries_is_not_averaged(data_root, run_folder):
    tuner = lightning("LearningRateFinder", num_training_steps=12, min_lr=1e-5, early_stop_threshold=None)
    main([*FIT, f"--data.root={data_root}", *overlay(tuner, WATCHED), "--trainer.max_steps=2"])
    require_average(load(LAST), Weights.seen)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:--trainer.max_epochs 1 ends inside")
def test_a_notebook_is_left_with_the_average(data_root, run_folder):
    data = ImageFolderDataModule(str(data_root), image_size=32, batch_size=8, num_workers=0)
    model = ImageClassifier(list(data.classes.names), "resnet18", "none", ema_decay=DECAY)
    watched = Weights()
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=1, callbacks=[watched], logger=False,
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                      use_distributed_sampler=False)  # fmt: skip
    trainer.fit(model, datamodule=data)
    during = dict(trainer.callback_metrics)
    trainer.save_checkpoint("after.ckpt")
    checkpoint = load("after.ckpt")
    require_average(checkpoint, Weights.seen)
    shown = {f"network.{name}": value for name, value in model.network.state_dict().items()}
    assert differences(checkpoint["state_dict"], shown) == []
    (after,) = trainer.validate(model, datamodule=data, verbose=False)
    assert after == {name: value.item() for name, value in during.items() if name.startswith("val/")}
    trainer.save_checkpoint("again.ckpt")
    assert differences(load("again.ckpt")["ema"], checkpoint["ema"]) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model.ema_decay=1"], "--model.ema_decay must be auto, or at least 0 and below 1, got 1"),
        (["--model.ema_decay=often"], "--model.ema_decay must be"),
        (["--trainer.precision=bf16-true"], "--model.ema_decay 0.3 does not work with --trainer.precision bf16-true"),
    ],
)
def test_refuses(words, sentence, data_root, run_folder, refusal):
    assert sentence in refusal(*FIT, f"--data.root={data_root}", *words)


@pytest.mark.parametrize(
    "callback",
    [
        lightning("EMAWeightAveraging", decay=0.5),
        lightning("StochasticWeightAveraging", swa_lrs=1e-2),
        lightning("ModelPruning", pruning_fn="l1_unstructured"),
    ],
    ids=lambda pair: pair[0].rpartition(".")[2],
)
def test_refuses_what_would_change_the_average(callback, data_root, run_folder, refusal):
    error = refusal(*FIT, f"--data.root={data_root}", *overlay(callback))
    assert f"--model.ema_decay 0.3 cannot be combined with {callback[0].rpartition('.')[2]}, which changes" in error


def test_another_decay_is_refused_on_resume(whole, data_root, run_folder, refusal):
    resume = f"--ckpt_path={whole[0] / 'saved' / '2.ckpt'}"
    assert "(ema_decay 0.5 instead of 0.3)" in refusal(*FIT, f"--data.root={data_root}", resume, "--model.ema_decay=.5")
