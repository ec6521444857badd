"""Every option of the installed Lightning's Trainer and every callback that it ships: each works, or is refused in one
sentence. The lists come from Lightning, so that a new one fails here until somebody says what it does."""

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer, callbacks

from scripts.main import main
from tests.conftest import SMALL

WORKS = None
FIT = ["fit", *SMALL, "--trainer.max_epochs=1", "--model.restart_epochs=1"]
RUN = Path("runs/default/version_0")

# Values that work, in one run.
TOGETHER = {
    "accelerator": "cpu",
    "strategy": "auto",  # ddp, which leaves a process group behind, is tried in test_processes
    "min_epochs": "1",
    "min_steps": "1",
    "max_time": "00:00:05:00",
    "limit_train_batches": "2",
    "limit_val_batches": "1",
    "limit_test_batches": "1",
    "limit_predict_batches": "1",
    "num_sanity_val_steps": "2",
    "log_every_n_steps": "1",
    "enable_checkpointing": "true",
    "enable_progress_bar": "true",
    "enable_model_summary": "true",
    "accumulate_grad_batches": "2",
    "gradient_clip_val": "1.0",
    "gradient_clip_algorithm": "norm",
    "deterministic": "warn",
    "benchmark": "false",
    "inference_mode": "false",
    "use_distributed_sampler": "false",
    "profiler": "simple",
    "detect_anomaly": "true",
    "sync_batchnorm": "true",
    "reload_dataloaders_every_n_epochs": "1",
    "enable_autolog_hparams": "false",
    "plugins": "null",
    "model_registry": "null",
}
# Runs of their own: what is said of a value, or WORKS.
OPTIONS = {
    "accelerator": {"tpu": "torch_xla", "mps": "not available|can not run", "foo": "invalid accelerator"},
    "strategy": {"foo": "invalid strategy", "fsdp": "requires a GPU"},
    "devices": {"0,": "should be an int > 0", "-3": "should be an int > 0", "x": ""},
    "num_nodes": {"0": "num_nodes must be a finite number of at least 1, got 0"},
    "precision": {
        **dict.fromkeys(("bf16-true", "64-true", "bf16-mixed"), WORKS),
        "transformer-engine": "transformer_engine",
        "foo": "--trainer.precision must be .*bf16-mixed.*got foo",
    },
    "logger": {"false": "logger"},
    "callbacks": {"[{class_path: nowhere.Nothing}]": "nowhere.Nothing cannot be used: No module named"},
    "fast_dev_run": {"-1": "fast_dev_run=-1"},
    "max_epochs": {"0": "leaves fit nothing to do", "-5": "max_epochs", "x": "must be a whole number or null, got x"},
    "max_steps": {"1": WORKS, "0": "leaves fit nothing to do", "-5": "max_steps"},
    "max_time": {"foo": "not a valid duration", "00:00:00:00": "must be longer than 0"},
    "limit_train_batches": {"0": "nothing to do", "0.1": "limit_train_batches", "-1": "invalid value -1"},
    "limit_val_batches": {"0": "limit_val_batches", "0.1": "limit_val_batches", "-1": "invalid value -1"},
    "limit_test_batches": {"-1": "invalid value -1"},
    "limit_predict_batches": {"-1": "invalid value -1"},
    "overfit_batches": {"1": WORKS, "-1": "invalid value -1", "0.01": "Lightning does not accept"},
    "val_check_interval": dict.fromkeys(("0.5", "1000", "00:00:10:00"), "validates inside epochs"),
    "check_val_every_n_epoch": {"2": WORKS, "0": "must be a finite number of at least 1, got 0"},
    "num_sanity_val_steps": {"-2": "of at least -1, got -2"},
    "log_every_n_steps": {"-1": "must be a finite number of at least 0, got -1"},
    "accumulate_grad_batches": {"0": "must be a finite number of at least 1, got 0"},
    "gradient_clip_val": {
        "-1": "must be a finite number of at least 0, got -1",
        ".nan": "must be a finite number of at least 0, got nan",
    },
    "gradient_clip_algorithm": {"foo": "foo is invalid"},
    "deterministic": {"true": WORKS, "foo": "must be true or false"},
    "benchmark": {"foo": "must be true or false"},
    "profiler": {"foo": "profiler"},
    "barebones": {"true": "barebones true switches off"},
    "reload_dataloaders_every_n_epochs": {"-1": "of at least 0"},
    "default_root_dir": {"elsewhere": "default_root_dir elsewhere has no effect"},
}

# Callbacks that work, in one run, with their arguments.
CALLBACKS_TOGETHER = {
    "BasePredictionWriter": {},
    "Callback": {},
    "Checkpoint": {},
    "DeviceStatsMonitor": {"cpu_stats": False},
    "EarlyStopping": {"monitor": "val/accuracy", "mode": "max"},
    "GradientAccumulationScheduler": {"scheduling": {"0": 2}},
    "LambdaCallback": {},
    "LearningRateMonitor": {},
    "ModelCheckpoint": {},
    "OnExceptionCheckpoint": {"dirpath": "kept"},
    "RichModelSummary": {},
    "RichProgressBar": {},
    "SpikeDetection": {},
    "ThroughputMonitor": {"batch_size_fn": "builtins.len"},
    "Timer": {"duration": "00:00:05:00"},
}
CALLBACKS = {
    "BackboneFinetuning": "BackboneFinetuning needs a submodule named backbone",
    "BaseFinetuning": "NotImplementedError",
    "ModelSummary": WORKS,
    "ProgressBar": WORKS,
    "TQDMProgressBar": WORKS,
}
# What these do to weights and rates is tested in test_lightnings_callbacks.
WITH_A_TEST = {
    "BatchSizeFinder",
    "EMAWeightAveraging",  # and with it its base, WeightAveraging
    "LearningRateFinder",
    "ModelPruning",
    "StochasticWeightAveraging",
}

pytestmark = pytest.mark.filterwarnings("ignore")


def said_of(words, capsys):
    """What a command says of its options, on stderr after its name; WORKS where it ends as it should."""
    capsys.readouterr()
    ended = None
    try:
        main(words)
    except SystemExit as exit:
        ended = exit
    if ended is None:
        return WORKS
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.code == 2, error
    return error.removeprefix("cbam100: error: ")


def check(words, expected, capsys):
    said = said_of(words, capsys)
    if expected is WORKS:
        assert said is WORKS
        manifest = json.loads((RUN / "manifest.json").read_text())
        assert manifest["events"][-1]["event"] == "finished"
        assert (RUN / "model.safetensors").is_file()
    else:
        assert said is not WORKS
        assert re.search(expected, said), said


def test_every_option_is_listed():
    assert OPTIONS.keys() | TOGETHER.keys() == inspect.signature(Trainer).parameters.keys()
    assert CALLBACKS_TOGETHER.keys() | CALLBACKS.keys() | WITH_A_TEST | {"WeightAveraging"} == set(callbacks.__all__)
    tests = Path(__file__).with_name("test_lightnings_callbacks.py").read_text()
    assert all(f'lightning("{name}"' in tests for name in WITH_A_TEST)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [(option, value, expected) for option, values in OPTIONS.items() for value, expected in values.items()],
)
def test_an_option_works_or_is_refused_in_a_sentence(option, value, expected, data_root, run_folder, capsys):
    words = [word for word in FIT if not word.startswith(f"--trainer.{option}=")]
    check([*words, f"--data.root={data_root}", f"--trainer.{option}={value}"], expected, capsys)


def test_options_that_work_work_together(data_root, run_folder, capsys):
    words = [word for word in FIT if not word.startswith("--trainer.accelerator=")]
    options = [f"--trainer.{option}={value}" for option, value in TOGETHER.items()]
    check([*words, f"--data.root={data_root}", *options], WORKS, capsys)


def with_callbacks(arguments):
    listed = [{"class_path": f"pytorch_lightning.callbacks.{name}", "init_args": x} for name, x in arguments.items()]
    Path("default.yaml").write_text(json.dumps({"trainer": {"callbacks": listed}}))
    return [*FIT, "--config=default.yaml"]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ModelCheckpoint", {"filename": "best"}, "would overwrite the run's best.ckpt"),
        ("ModelCheckpoint", {"dirpath": "/proc/version/x"}, "cannot write|failed"),
        (
            "EarlyStopping",
            {"monitor": "val/accuracy", "mode": "maximum"},
            "cannot be used: `mode` can be min",
        ),
        (
            "EarlyStopping",
            {"monitor": "val/accuracy", "patiance": 3},
            "cannot be used: Option 'patiance'",
        ),
        ("EMAWeightAveraging", {"decay": 5}, "EMAWeightAveraging cannot be used: Invalid decay value 5.0"),
        ("ModelPruning", {"pruning_fn": "l1_unstructured", "amount": 5.0}, "does not accept .*amount=5.0"),
    ],
)
def test_arguments_of_callbacks_that_cannot_work(name, arguments, expected, data_root, run_folder, capsys):
    check([*with_callbacks({name: arguments}), f"--data.root={data_root}"], expected, capsys)


@pytest.mark.parametrize(("name", "expected"), CALLBACKS.items())
def test_a_callback_works_or_is_refused_in_a_sentence(name, expected, data_root, run_folder, capsys):
    check([*with_callbacks({name: {}}), f"--data.root={data_root}"], expected, capsys)


def test_callbacks_that_work_work_together(data_root, run_folder, capsys):
    check([*with_callbacks(CALLBACKS_TOGETHER), f"--data.root={data_root}"], WORKS, capsys)


@pytest.mark.parametrize("kind", ["val", "test", "predict"])
def test_a_measurement_of_nothing_is_refused(kind, trained, data_root, run_folder, capsys):
    command = {"val": "validate"}.get(kind, kind)
    words = [f"--ckpt_path={trained}/model.safetensors", f"--data.root={data_root}", "--data.num_workers=0"]
    said = said_of([command, *words, f"--trainer.limit_{kind}_batches=0"], capsys)
    assert said.startswith(f"--trainer.limit_{kind}_batches 0 leaves {command} nothing to do")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "holds no options"),
        (b"run_name: caf\xe9", "is not UTF-8 text .*0xe9 at position 13"),
        (b"- a\n- b", "must hold options by name.*got a list"),
        (b"data: {batch_size: 8", "is not valid YAML"),
        (b"fit:\n  data: {batch_size: 8}", "has its options below 'fit:'"),
        (b"data: {batch_sice: 8}", "batch_sice"),
        (b"data: {batch_size: 8}\ndata: {cache: ram}", "has 'data' twice"),
        (b"trainer: {max_time: {minuts: 3}}", "does not accept these options: 'minuts'"),
        (
            b"trainer: {accumulate_grad_batches: 2, strategy: {class_path: pytorch_lightning.strategies.DDPStrategy, "
            b"init_args: {static_graph: true}}}",
            "cannot combine DDP's static_graph with gradient accumulation",
        ),
        (b"trainer: {logger: {class_path: pytorch_lightning.loggers.WandbLogger}}", "wandb"),
    ],
)
def test_a_config_file_that_cannot_be_used(text, expected, data_root, run_folder, capsys):
    Path("mine.yaml").write_bytes(text)
    assert re.search(expected, said_of([*FIT, f"--data.root={data_root}", "--config=mine.yaml"], capsys))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data.batch_size=1"], "batch normalisation needs more than one value"),
        ([f"--run_name={'a' * 300}"], "File name too long"),
        (["--ckpt_path=last", "--trainer.logger=pytorch_lightning.loggers.CSVLogger", "--trainer.logger.save_dir=csv"],
         "--ckpt_path last looks in runs/default"),
    ],
)  # fmt: skip
def test_other_options_that_cannot_work(words, expected, data_root, run_folder, capsys):
    assert expected in said_of([*FIT, f"--data.root={data_root}", *words], capsys)


def test_a_command_that_does_not_exist(capsys):
    assert said_of(["fitt"], capsys).startswith("there is no command fitt: choose audit, pack, fit, ")


def homeless(path):
    raise RuntimeError("Could not determine home directory.")


def test_a_cache_without_a_home(data_root, run_folder, monkeypatch, capsys):
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.expanduser", homeless)  # which Path.home calls
    said = said_of([*FIT, f"--data.root={data_root}", "--data.cache=disk"], capsys)
    assert said is not WORKS
    assert "XDG_CACHE_HOME" in said


def test_a_gpu_out_of_memory_is_said_in_a_sentence(data_root, run_folder, monkeypatch, capsys):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 79 GiB")

    monkeypatch.setattr("lightning_modules.classifier.ImageClassifier.training_step", fail)
    said = said_of([*FIT, f"--data.root={data_root}"], capsys)
    assert said.startswith("the GPU is out of memory (2.00 GiB more was needed): lower --data.batch_size")


def test_a_fault_of_ours_keeps_its_traceback(data_root, run_folder, monkeypatch):
    monkeypatch.setattr("lightning_modules.classifier.ImageClassifier.training_step", lambda *_: {}["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        main([*FIT, f"--data.root={data_root}"])
