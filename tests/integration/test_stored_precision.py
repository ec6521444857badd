"""With 16 bits on file, rounded weights are what is validated, chosen and exported, and a resume loses no digit."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning import Callback
from safetensors.torch import load_file, save_file

from datamodules import ImageFolderDataModule
from lightning_modules import ImageClassifier
from lightning_modules.trained_model import largest_export_bytes, read_trained_model
from scripts.main import main
from tests.integration.test_calibration import validation_by_hand
from tests.integration.test_lightnings_callbacks import lightning, metrics_of, overlay
from tests.integration.test_resume import FIT, differences, fit, fit_and_keep, load, some_of

RUN = Path("runs/default/version_0")
LAST = RUN / "checkpoints/last.ckpt"
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
OPTIONS = {
    "fp16": ["--size_budget.precision=fp16"],
    "bf16": ["--size_budget.precision=bf16", "--model.ema_decay=0.3", "--model.temperature=fit"],
}
pytestmark = pytest.mark.filterwarnings("ignore:the temperature stays at its bound")  # of so small a network


@pytest.fixture(scope="module", params=OPTIONS)
def whole(request, data_root, new_folder):
    """The precision, and the folder of a run with its last.ckpt after each of 12 steps."""
    return request.param, fit_and_keep(new_folder(request.param), data_root, *OPTIONS[request.param])


def of_network(state):
    return {name.removeprefix("network."): x for name, x in state.items() if name.startswith("network.")}


def by_hand(state, dtype):
    """The weights as a file of 16 bits holds them."""
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in of_network(state).items()}


def widened(stored):
    return {name: x.float() if x.is_floating_point() else x for name, x in stored.items()}


def best_of(run):
    return json.loads((run / "manifest.json").read_text())["best"]


def test_both_files_hold_the_rounded_weights_that_were_measured(whole, data_root, capsys):
    precision, folder = whole
    run, dtype = folder / RUN, TYPES[whole[0]]
    exported, best, checkpoint = load_file(run / "model.safetensors"), best_of(run), load(run / "checkpoints/best.ckpt")
    assert {x.dtype for x in exported.values()} == {dtype, torch.int64}
    assert differences(by_hand(checkpoint["unrounded"], dtype), exported) == []
    assert differences(of_network(checkpoint["state_dict"]), widened(exported)) == []
    assert differences(of_network(checkpoint["unrounded"]), widened(exported)) != []

    logits, targets = validation_by_hand(widened(exported), data_root)
    assert best["val/accuracy"] == (logits.argmax(1) == targets).float().mean()
    assert best["val/nll"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    measured = {name: value for name, value in best.items() if name.startswith("val/")}
    for name in ("checkpoints/best.ckpt", "model.safetensors"):
        found = metrics_of(run / name, data_root, capsys)
        assert found == {name: measured[name] for name in found}
    model = ImageClassifier(**read_trained_model(run / "model.safetensors").model)
    largest = largest_export_bytes(model, ImageFolderDataModule(data_root, image_size=32), dtype)
    assert 0 <= largest - (run / "model.safetensors").stat().st_size < 600
    facts = json.loads((run / "manifest.json").read_text())
    assert facts["size_bytes"] == sum(x.nbytes for x in exported.values())
    assert f"\n  precision: {precision}\n" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("step", some_of(range(1, 12), {3}))  # 6 is at an epoch's end
def test_every_saved_state_leads_to_the_same_end(step, whole, data_root, run_folder):
    precision, folder = whole
    fit(data_root, *OPTIONS[precision], f"--ckpt_path={folder / 'saved' / f'{step}.ckpt'}")
    assert differences(load(folder / LAST), load(LAST)) == []
    assert best_of(folder / RUN) == best_of(RUN)


@pytest.mark.parametrize("whole", ["bf16"], indirect=True)
def test_what_is_trained_does_not_depend_on_it(whole, data_root, run_folder):
    precision, folder = whole
    fit(data_root, *OPTIONS[precision], "--size_budget.precision=fp32")
    expected, rounded_run = load(LAST), load(folder / LAST)
    assert "unrounded" not in expected
    trained = {**rounded_run["state_dict"], **rounded_run["unrounded"]}
    assert differences(expected["state_dict"], trained) == []
    assert differences(expected.get("ema"), rounded_run.get("ema")) == []
    assert differences(expected["optimizer_states"], rounded_run["optimizer_states"]) == []


class Failing(Callback):
    """Raises in the first epoch's validation, after its first batch or at its end."""

    hook = ""

    def on_validation_batch_end(self, trainer, *_):
        self.fail_in("batch", trainer)

    def on_validation_end(self, trainer, *_):
        self.fail_in("end", trainer)

    def fail_in(self, hook, trainer):
        if hook == Failing.hook and trainer.global_step == 6 and not trainer.sanity_checking:
            raise RuntimeError("a fault of the user's")


@pytest.mark.parametrize(
    ("whole", "hook"),
    [
        ("bf16", "batch"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("fp16", "batch"), ("bf16", "end"))),
    ],
    indirect=["whole"],
)
def test_an_error_in_a_validation_does_not_mix_them_up(whole, hook, data_root, run_folder, monkeypatch):
    precision, folder = whole
    words = [*OPTIONS[precision], *overlay((f"{__name__}.Failing", {})), "--best.every_n_steps=0"]
    monkeypatch.setattr(Failing, "hook", hook)
    with pytest.raises(RuntimeError, match="a fault of the user's"):
        fit(data_root, *words)
    saved, expected = load(LAST), load(folder / "saved/6.ckpt")
    for part in ("state_dict", "unrounded", "ema"):
        assert differences(saved.get(part), expected.get(part)) == []
    monkeypatch.setattr(Failing, "hook", "")
    fit(data_root, *words, "--ckpt_path=last")
    assert differences(load(folder / LAST), load(LAST)) == []


@pytest.mark.parametrize("whole", ["fp16"], indirect=True)
def test_a_file_of_16_bits_is_widened_exactly_wherever_it_is_read(whole, data_root, run_folder, capsys):
    _, folder = whole
    weights = folder / RUN / "model.safetensors"
    exact = widened(load_file(weights))
    save_file(exact, "wide.safetensors", {"format": "pt"})
    first = {}
    for name in (weights, "wide.safetensors"):
        fit(data_root, f"--model.weights={name}", "--trainer.max_steps=1", "--trainer.num_sanity_val_steps=0")
        first[name] = load(LAST)["state_dict"]
    assert differences(*first.values()) == []
    predicted = []
    for name in (weights, folder / RUN / "checkpoints/best.ckpt"):
        main(["predict", f"--ckpt_path={name}", f"--data.root={data_root}", "--data.num_workers=0"])
        predicted.append(Path("prediction.csv").read_bytes())
    assert predicted[0] == predicted[1]
    assert differences(read_trained_model(weights).network, load_file(weights)) == []
    image = next(data_root.glob("test/*"))
    main(["explain", f"--ckpt_path={weights}", str(image), "--output=maps"])
    main(["report", f"--run={folder / RUN}"])
    size = sum(tensor.numel() * tensor.element_size() for tensor in load_file(weights).values())
    assert f"{size / 1e6:.2f} MB" in (folder / RUN / "report.html").read_text()


class Spoiling(Callback):
    """Sets a batch-norm statistic beyond float16 before the first validation."""

    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.network.bn1.running_var.fill_(7e5)


def test_a_value_that_would_become_infinite_is_an_error(data_root, run_folder, refusal):
    words = ["fit", *FIT, f"--data.root={data_root}", *overlay((f"{__name__}.Spoiling", {})), "--best.every_n_steps=0",
             "--trainer.max_epochs=1", "--model.restart_epochs=1"]  # fmt: skip
    assert refusal(*words, "--size_budget.precision=fp16") == (
        "cbam100: error: bn1.running_var has values too large for --size_budget.precision fp16, in which they would be "
        "infinite: choose bf16, which holds larger ones"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "callback",
    [
        lightning("StochasticWeightAveraging", swa_lrs=1e-2, swa_epoch_start=1),
        *(
            lightning("ModelPruning", pruning_fn="l1_unstructured", amount=0.3, **options)
            for options in ({}, {"make_pruning_permanent": False}, {"prune_on_train_epoch_end": False})
        ),
    ],
    ids=lambda pair: "-".join([pair[0].rpartition(".")[2], *map(str, pair[1].values())]),
)
@pytest.mark.filterwarnings("ignore:--trainer.max_epochs 3 ends inside")  # SWA adds an epoch
def test_callbacks_that_change_weights(callback, data_root, run_folder, capsys):
    fit(data_root, *OPTIONS["fp16"], *overlay(callback), "--best.every_n_steps=0")
    measured = {name: value for name, value in best_of(RUN).items() if name.startswith("val/")}
    assert metrics_of(RUN / "checkpoints/best.ckpt", data_root, capsys) == measured
    assert metrics_of(RUN / "model.safetensors", data_root, capsys) == measured


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_any_precision_of_training(precision, data_root, run_folder, capsys):
    words = [*OPTIONS["fp16"], f"--trainer.precision={precision}", "--best.every_n_steps=0"]
    words += ["--model.learning_rate=1e-4"]  # at 1e-3, weights that are trained in float16 soon overflow by themselves
    fit(data_root, *words, "--run_name=whole")
    run = Path("runs/whole/version_0")
    measured = {name: value for name, value in best_of(run).items() if name.startswith("val/")}
    for name in ("checkpoints/best.ckpt", "model.safetensors"):
        assert metrics_of(run / name, data_root, capsys) == measured
    assert {x.dtype for x in load_file(run / "model.safetensors").values()} == {torch.float16, torch.int64}
    fit(data_root, *words, "--trainer.max_steps=8")
    fit(data_root, *words, "--ckpt_path=last")
    assert differences(load(run / "checkpoints/last.ckpt"), load(LAST)) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
def test_a_tuner_leaves_the_weights_as_they_were(data_root, run_folder):
    tuner = lightning("LearningRateFinder", num_training_steps=12, min_lr=1e-5, early_stop_threshold=None)
    words = [*overlay(tuner), "--best.every_n_steps=0", "--trainer.max_steps=2"]
    fit(data_root, *words, "--run_name=plain")
    fit(data_root, *words, *OPTIONS["fp16"])
    trained = load(LAST)["unrounded"]
    assert differences(load("runs/plain/version_0/checkpoints/last.ckpt")["state_dict"], trained) == []


def test_refuses_a_callback_that_swaps_weights_in_validation(data_root, run_folder, refusal):
    average = lightning("EMAWeightAveraging", decay=0.5)
    assert refusal("fit", *FIT, f"--data.root={data_root}", *overlay(average), *OPTIONS["fp16"]) == (
        "cbam100: error: --size_budget.precision fp16 cannot be combined with EMAWeightAveraging, which replaces the "
        "rounded weights in a validation: average with --model.ema_decay instead"
    )


@pytest.mark.parametrize("given", ["fp32", "other"])
def test_another_precision_is_refused_on_resume(given, whole, data_root, run_folder, refusal):
    precision, folder = whole
    other = given if given == "fp32" else next(name for name in OPTIONS if name != precision)
    resume = f"--ckpt_path={folder / 'saved' / '2.ckpt'}"
    words = [*OPTIONS[precision], f"--size_budget.precision={other}"]
    error = refusal("fit", *FIT, f"--data.root={data_root}", resume, *words)
    assert f"(size_budget.precision {other} instead of {precision})" in error
