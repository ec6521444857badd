"""Which options a resume may change: every one of the Trainer, the data and the model, by their own signatures."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning import Trainer

from callbacks.run.recipe import trainer_options
from datamodules import ImageFolderDataModule
from lightning_modules import ImageClassifier
from scripts.main import main
from tests.conftest import SMALL, working_in

FIT = ["fit", *SMALL, "--data.batch_size=8", "--trainer.max_epochs=1", "--model.restart_epochs=1"]
RUN = Path("runs/default/version_0")

# Another value than the run's, with which a resume would not end where the run would have ended.
TRAINER_DECIDES = {
    "precision": "64-true",  # the default on no CPU
    "limit_train_batches": "3",
    "limit_val_batches": "1",
    "overfit_batches": "1.0",
    "check_val_every_n_epoch": "2",
    "accumulate_grad_batches": "2",
    "gradient_clip_val": "1",
    "gradient_clip_algorithm": "value",
    "deterministic": "true",
    "reload_dataloaders_every_n_epochs": "1",
}
TRAINER_FREE = {
    "min_epochs": "1", "max_steps": "100", "min_steps": "1", "max_time": "01:00:00:00", "limit_test_batches": "1",
    "limit_predict_batches": "1", "num_sanity_val_steps": "0", "log_every_n_steps": "1",
    "enable_progress_bar": "true", "enable_model_summary": "true", "benchmark": "false", "inference_mode": "false",
    "use_distributed_sampler": "true", "profiler": "simple", "detect_anomaly": "true",
    "enable_autolog_hparams": "false",
}  # fmt: skip
# Compared by what they lead to (processes, device), shown elsewhere, or of no meaning in a run folder of its own.
TRAINER_OTHER = {"accelerator", "strategy", "devices", "num_nodes", "max_epochs", "sync_batchnorm", "logger",
                 "callbacks", "fast_dev_run", "val_check_interval", "enable_checkpointing", "barebones", "plugins",
                 "model_registry", "default_root_dir"}  # fmt: skip
DATA_DECIDES = {
    "image_size": "40", "batch_size": "4", "val_fraction": "0.2", "max_pixels": "1000000", "on_bad_image": "skip",
    "augmentation": "reference", "seed": None, "class_names": None, "crop_scale": "[0.5,1.0]",
    "random_erasing": "0.5", "mixup_alpha": "0.2", "cutmix_alpha": "1", "progressive": "32@1",
    "folds": "2", "group_pattern": ".*", "fraction": "0.5",
    # which need another option:
    "mix_probability": None, "plain_epochs": None, "fold": None, "group_column": None,
}  # fmt: skip
DATA_FREE = {"root": None, "num_workers": "1", "predict_dir": "absent", "template": "absent", "worker_timeout": "60",
             "cache": "ram", "labels": None, "image_column": None, "label_column": None, "split_column": None,
             "class_list": None}  # fmt: skip
MODEL_FREE = {"tta": "hflip", "activation_checkpointing": "true"}
MODEL_DECIDES = {
    "backbone": "resnet34", "weights": "IMAGENET1K_V1", "attention": "none", "attention_placement": "block",
    "attention_gate": "identity", "reduction_ratio": "64", "spatial_kernel_size": "5", "dropout": "0.1",
    "drop_path": "0.1", "loss": "cross_entropy", "focal_gamma": "1", "class_weights": "balanced",
    "label_smoothing": "0.1", "learning_rate": "0.1", "weight_decay": "0.1",
    "min_learning_rate": "0.0001", "restart_epochs": "2", "restart_multiplier": "3", "compile": "gates",
    "ema_decay": "0.9", "temperature": "fit",
    "schedule": "cosine", "trunk_learning_rate_ratio": "0.1", "layer_decay": "0.8", "weight_decay_on": "matrices",
    "freeze_trunk_epochs": "1", "zero_init_residual": "true", "warmup_epochs": None, "class_names": None,
}  # fmt: skip


def flags(group, options):
    return [f"--{group}.{name}={value}" for name, value in options.items() if value is not None]


def test_every_option_is_in_a_list():
    def names(of):
        return set(inspect.signature(of).parameters)

    assert names(Trainer) == TRAINER_DECIDES.keys() | TRAINER_FREE.keys() | TRAINER_OTHER
    assert names(ImageFolderDataModule) == DATA_DECIDES.keys() | DATA_FREE.keys()
    assert names(ImageClassifier) == MODEL_DECIDES.keys() | MODEL_FREE.keys()
    assert {*ImageFolderDataModule.FREE_ON_RESUME} == DATA_FREE.keys() | {"class_names"}  # which the model's compares
    assert {*ImageClassifier.FREE_ON_RESUME} == MODEL_FREE.keys()
    assert DATA_DECIDES.keys() >= {*ImageFolderDataModule.IN_TRAINED_FILE}


@pytest.fixture(scope="module")
def finished(data_root, new_folder):
    folder = new_folder("finished")
    with working_in(folder):
        main([*FIT, f"--data.root={data_root}"])
    return folder


@pytest.fixture
def resumed(finished, run_folder, data_root):
    """Resumes a copy of the finished run with more options; there is nothing left to do."""
    shutil.copytree(finished / "runs", "runs")
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield lambda *options: main([*FIT, f"--data.root={data_root}", "--ckpt_path=last", *options])
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize(
    "flag", [*flags("trainer", TRAINER_DECIDES), *flags("data", DATA_DECIDES), *flags("model", MODEL_DECIDES)]
)
def test_what_decides_where_a_run_ends_cannot_change(flag, resumed, capsys):
    before = {path: path.read_bytes() for path in Path("runs").rglob("*.*") if path.is_file()}
    with pytest.raises(SystemExit, match="2"):
        resumed(flag)
    name = flag.partition(".")[2].partition("=")[0]
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("cbam100: error: "))
    assert f"this run differs from the checkpoint's ({name} " in error
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("name", "more"),
    [("mix_probability=0.5", ["--data.mixup_alpha=0.2"]),
     ("plain_epochs=1", ["--data.random_erasing=0.5", "--trainer.max_epochs=2"])],
)  # fmt: skip
def test_what_needs_another_option_cannot_change_either(name, more, resumed, capsys):
    with pytest.raises(SystemExit, match="2"):
        resumed(f"--data.{name}", *more)
    option, value = name.split("=")
    assert re.search(rf"differs from the checkpoint's \(.*{option} {value} instead of", capsys.readouterr().err)


def test_an_option_that_came_with_a_later_version_was_off(resumed, capsys):
    (path,) = Path("runs").rglob("last.ckpt")
    content = torch.load(path, weights_only=True)
    del content["hyper_parameters"]["label_smoothing"]
    torch.save(content, path)
    with pytest.raises(SystemExit, match="2"):
        resumed("--model.label_smoothing=0.1")
    assert "(label_smoothing 0.1 instead of 0.0)" in capsys.readouterr().err
    resumed()


def test_the_checkpoint_is_read_once(resumed, monkeypatch):
    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: reads.append(args) or load(*args, **options))
    resumed()
    assert len(reads) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", ["trainer", "data", "model"])
def test_what_does_not_decide_can(group, resumed, capsys):
    resumed(*flags(group, {"trainer": TRAINER_FREE, "data": DATA_FREE, "model": MODEL_FREE}[group]))
    assert "has done its 1 epochs: nothing is left to do" in capsys.readouterr().out


def test_shared_batch_norm_is_compared():
    for value in (True, False):
        trainer = Trainer(accelerator="cpu", strategy="ddp", devices=2, sync_batchnorm=value, logger=False)
        assert trainer_options(trainer)["sync_batchnorm"] is value


def test_the_arguments_of_a_callback_that_trains_are_compared(data_root, run_folder, capsys):
    def fit(decay):
        average = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": decay}}
        Path("average.yaml").write_text(json.dumps({"trainer": {"callbacks": average}}))
        main([*FIT, "--config=average.yaml", f"--data.root={data_root}", "--ckpt_path=last"])

    fit(0.5)
    fit(0.5)
    assert "nothing is left to do" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        fit(0.9)
    error = capsys.readouterr().err
    assert re.search("callbacks .*'decay': 0.9.* instead of .*'decay': 0.5", error)


def test_another_number_of_threads_cannot(resumed, capsys):
    torch.set_num_threads(2)
    with pytest.raises(SystemExit, match="2"):
        resumed()
    assert "(OMP_NUM_THREADS 2 instead of 1): resume with the options" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:--trainer.max_epochs 2 ends inside")
def test_the_config_is_the_last_starts_and_the_manifest_says_what_changed(resumed, data_root):
    resumed("--trainer.max_epochs=2", "--data.num_workers=1", "--best.every_n_minutes=5")
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2
    assert config["ckpt_path"] is None
    event = json.loads((RUN / "manifest.json").read_text())["events"][2]
    assert event["event"] == "resumed"
    assert event["changed"] == {
        "trainer.max_epochs": [1, 2], "data.num_workers": [0, 1], "best.every_n_minutes": [15.0, 5.0],
    }  # fmt: skip
    main(["fit", "--config", str(RUN / "config.yaml")])
    again = RUN.with_name("version_1")
    ended, expected = (json.loads((run / "manifest.json").read_text())["best"] for run in (again, RUN))
    assert ended == expected
