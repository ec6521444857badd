"""The four subcommands, in this process, on generated images."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules import ImageClassifier
from scripts.main import main
from tests.conftest import SMALL

REVERSED = json.dumps([str(label) for label in reversed(range(12))])


def run(*args):
    main([str(arg) for arg in args])


def final_weights(*options):
    """Fits for one epoch in a new run folder and returns the last epoch's network."""
    run("fit", *SMALL, "--trainer.max_epochs=1", "--model.restart_epochs=1", *options)
    folder = max(Path("runs/default").iterdir(), key=lambda path: int(path.name.split("_")[1]))
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_run_folder(trained):
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if "tfevents" not in path.name}
    assert names >= {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "model.safetensors",
        "manifest.json",
        "config.yaml",
    }
    assert (trained / "model.safetensors").stat().st_size < 100_000_000
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["seed"] == 42
    assert manifest["data"]["train"]["images"] == 48
    assert manifest["versions"]["torch"] == torch.__version__


def test_tensorboard_has_every_number_against_epochs(trained):
    events = EventAccumulator(str(trained)).Reload()
    tags = "train/loss train/accuracy val/loss val/accuracy val/accuracy_macro lr epoch_seconds images_per_second"
    for tag in tags.split():
        assert [event.step for event in events.Scalars(tag)] == [0, 1]
    # A cycle of 2 epochs from 1e-3 to 1e-5: the cosine at 0 and at half a turn of pi
    rates = [event.value for event in events.Scalars("lr")]
    assert rates == pytest.approx([1e-3, 1e-5 + (1e-3 - 1e-5) / 2 * (1 + math.cos(math.pi / 2))])
    best = max(event.value for event in events.Scalars("val/accuracy"))
    assert events.Scalars("best/val/accuracy")[-1].value == best
    hparams = EventAccumulator(str(trained)).Reload().PluginTagToContent("hparams")
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= hparams.keys()


@pytest.mark.parametrize("file", ["checkpoints/best.ckpt", "model.safetensors"])
def test_validate_prints_the_best_epochs_accuracy_to_the_last_digit(file, trained, data_root, run_folder, capsys):
    run("validate", "--ckpt_path", trained / file, "--data.root", data_root, "--data.num_workers=0")
    printed = dict(re.findall(r"(val/\w+)\s*│\s*([\d.e-]+)", capsys.readouterr().out))
    best = json.loads((trained / "manifest.json").read_text())["best"]
    assert {name: float(value) for name, value in printed.items()} == {
        name: value for name, value in best.items() if name.startswith("val/")
    }
    assert list(run_folder.iterdir()) == []


def test_test_measures_a_labelled_test_folder(trained, data_root, run_folder, tmp_path, capsys):
    root = tmp_path / "labelled"
    shutil.copytree(data_root / "val", root / "test")
    run("test", "--ckpt_path", trained / "model.safetensors", "--data.root", root, "--data.num_workers=0")
    accuracy = re.search(r"test/accuracy\s*│\s*([\d.e-]+)", capsys.readouterr().out)[1]
    assert float(accuracy) == json.loads((trained / "manifest.json").read_text())["best"]["val/accuracy"]


def test_one_seed_gives_one_set_of_weights_whatever_the_workers(data_root, run_folder):
    first = final_weights("--data.root", data_root)
    assert equal(first, final_weights("--data.root", data_root, "--data.num_workers=2"))
    other = final_weights("--data.root", data_root, "--seed_everything=43")
    assert not torch.equal(first["network.fc.weight"], other["network.fc.weight"])


def test_a_resumed_run_refuses_another_recipe(data_root, run_folder, capsys):
    options = [*SMALL, "--data.root", data_root, "--model.restart_epochs=2"]
    options += ["--trainer.max_epochs=2", "--trainer.precision=32-true"]
    run("fit", *options)
    last = "runs/default/version_0/checkpoints/last.ckpt"
    for change in ("--model.learning_rate=0.5", "--model.backbone=resnet34", "--data.class_names=[a,b]",
                   "--data.batch_size=8", "--seed_everything=7", "--trainer.precision=bf16-mixed"):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            run("fit", *options, "--ckpt_path", last, change)
    with pytest.raises(SystemExit, match="2"):
        run("fit", *options, "--ckpt_path", "runs/default/version_0/model.safetensors")
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cbam100: error")]
    assert "differs from the checkpoint's (learning_rate 0.5 instead of 0.001): resume with the options" in errors[0]
    assert "differs from the checkpoint's (backbone resnet34 instead of resnet18" in errors[1]
    assert "differs from the checkpoint's (batch_size 8 instead of 16): resume with the options" in errors[3]
    assert "differs from the checkpoint's (seed 7 instead of 42): resume with the options" in errors[4]
    assert "differs from the checkpoint's (precision bf16-mixed instead of 32-true" in errors[5]
    assert "model.safetensors holds only weights" in errors[6]


def test_a_typed_flag_beats_the_checkpoint(trained, data_root, run_folder, capsys):
    run("validate", "--ckpt_path", trained / "model.safetensors", "--data.root", data_root, "--data.num_workers=0",
        "--model.loss=cross_entropy")  # fmt: skip
    loss = float(re.search(r"val/loss\s*│\s*([\d.e-]+)", capsys.readouterr().out)[1])
    best = json.loads((trained / "manifest.json").read_text())["best"]
    assert loss > best["val/loss"]  # the focal loss is cross-entropy times a factor below 1


def test_a_users_callback_replaces_the_projects_own(data_root, run_folder, capsys):
    config = Path("limit.yaml")
    config.write_text(
        "trainer:\n  callbacks:\n    class_path: callbacks.SizeBudget\n    init_args:\n      limit_mb: 0.1\n"
    )
    with pytest.raises(SystemExit, match="2"):
        run("fit", "--config", config, *SMALL, "--data.root", data_root, "--size_budget.limit_mb=1000")
    assert "more than the budget of 0.10 MB" in capsys.readouterr().err


def test_an_overlay_names_the_run(data_root, run_folder, capsys):
    Path("small.yaml").write_text("trainer:\n  max_epochs: 1\nmodel:\n  restart_epochs: 1\n")
    run("fit", "--config", "small.yaml", *SMALL, "--data.root", data_root)
    assert Path("runs/small/version_0/model.safetensors").is_file()
    # What was saved is the whole recipe: it runs again by itself
    run("fit", "--config", "runs/small/version_0/config.yaml")
    assert equal(*(load_file(f"runs/small/version_{k}/model.safetensors") for k in (0, 1)))


def test_a_length_inside_a_cycle_is_warned_of_once(data_root, run_folder):
    with pytest.warns(UserWarning, match="a cycle ends after 30 or 70 epochs") as caught:
        run("fit", *SMALL, "--data.root", data_root, "--trainer.max_epochs=50", "--trainer.max_steps=1")
    assert sum("cosine cycle" in str(warning.message) for warning in caught) == 1


def test_an_over_budget_model_is_refused_before_any_image_is_opened(data_root, run_folder, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("an image was opened")

    monkeypatch.setattr("PIL.Image.open", never)
    with pytest.raises(SystemExit) as caught:
        run("fit", "--data.root", data_root, "--model.backbone=resnet101", "--data.num_workers=0")
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"cbam100: error: resnet101 .* takes 170\.\d+ MB .*, more than the budget of 100\.00 MB \(95\.37 MiB\): .*"
        r"--model\.backbone resnet50 \(94\.\d+ MB .*",
        error,
    )


def test_an_over_budget_file_never_gets_its_name(data_root, run_folder, monkeypatch, capsys):
    monkeypatch.setattr("callbacks.guards.size_budget.model_size_bytes", lambda *_: 0)
    with pytest.raises(SystemExit):
        run("fit", *SMALL, "--data.root", data_root, "--trainer.max_epochs=1", "--model.restart_epochs=1",
            "--size_budget.limit_mb=0.1")  # fmt: skip
    assert "more than the budget of 0.10 MB" in capsys.readouterr().err
    assert not list(Path("runs").rglob("*model.safetensors*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "--data.root=absent"], "there is no folder at absent (--data.root)"),
        (["fit", "--data.root=."], "there is no folder train with one subfolder for each class"),
        (["fit"], "required: --data.root"),
        (["fit", "--data.root=ROOT", "--model.atention=none"], "--model.atention"),
        (["fit", "--config=bad.yaml", "--data.root=ROOT"], "atention"),
        (["fit", "--config=absent.yaml", "--data.root=ROOT"], "absent.yaml"),
        (["fit", "--data.root=ROOT", "--model.attention=all"], "--model.attention must be cbam or none, got all"),
        (["fit", "--data.root=ROOT", *SMALL, "--model.weights=absent.pth"], "there is no file at absent.pth"),
        (["fit", "--data.root=ROOT", "--ckpt_path=bad.yaml"], "cannot load bad.yaml"),
        (["validate", "--data.root=ROOT"], "validate needs a trained model: pass --ckpt_path"),
        (["validate", "--data.root=ROOT", "--ckpt_path=absent.ckpt"], "there is no file at absent.ckpt"),
        (
            ["validate", "--data.root=ROOT", "--ckpt_path=bad.yaml"],
            "cannot load bad.yaml",
        ),
        (["predict", "--data.root=ROOT", "--ckpt_path=MODEL", "--data.template=bad.yaml"], "column image_name"),
        (["predict", "--data.root=ROOT", "--ckpt_path=MODEL", "--prediction.path=x.txt"], "must end in .csv"),
        (
            ["validate", "--data.root=ROOT", "--ckpt_path=MODEL", "--model.attention=none"],
            "attention none instead of cbam",
        ),
        (["predict", "--data.root=ROOT", "--ckpt_path=MODEL", "--prediction.path=absent/x.csv"], "can be written to"),
        (["predict", "--data.root=ROOT", "--ckpt_path=MODEL", "--prediction.top_k=13"], "top_k must be at most 12, "),
        (["predict", "--data.root=ROOT", "--ckpt_path=MODEL", "--prediction.path=."], "must end in .csv"),
        (["predict", "--data.root=ROOT", "--ckpt_path=MODEL", f"--data.class_names={REVERSED}"], "class_names"),
        (["fit", "--data.root=ROOT", "--seed_everything=-1"], "seed"),
        (["fit", "--data.root=ROOT", "--seed_everything=true"], "between 0 and 2^32 - 1, got True"),
        (["fit", "--data.root=ROOT", "--size_budget.limit_mb=.inf"], "limit_mb must be finite and above 0, got inf"),
        (["fit", "--data.root=ROOT", *SMALL, "--data.num_workers=-1"], "--data.num_workers must be at least 0, got -1"),
        (["fit", "--data.root=ROOT", *SMALL, "--trainer.logger=false"], "--trainer.logger cannot be false"),
        (
            ["fit", "--data.root=ROOT", *SMALL, "--trainer.accelerator=gpu"],
            "Lightning does not accept these options",
        ),
        ([], "subcommand"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_2(args, message, trained, data_root, run_folder, capsys):
    Path("bad.yaml").write_text("model:\n  atention: none\n")
    replace = {"ROOT": str(data_root), "MODEL": str(trained / "model.safetensors")}
    args = [re.sub("ROOT|MODEL", lambda match: replace[match[0]], arg) for arg in args]
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cbam100: error: ")]
    assert len(error) == 1
    assert message in error[0]
    assert not Path("prediction.csv").exists()


def test_a_run_folder_that_cannot_be_made_is_refused(data_root, run_folder, capsys):
    Path("runs").touch()
    with pytest.raises(SystemExit, match="2"):
        run("fit", *SMALL, "--data.root", data_root)
    assert re.search(r"cbam100: error: .*/runs/default is not a folder that can be written", capsys.readouterr().err)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_class_with_no_readable_image_is_named(workers, data_root, run_folder, tmp_path, capsys):
    root = Path(shutil.copytree(data_root, tmp_path / "root"))
    for path in (root / "train" / "5").iterdir():
        path.write_text("not an image")
    with pytest.raises(SystemExit) as caught:
        run("fit", *SMALL, "--data.root", root, f"--data.num_workers={workers}", "--trainer.max_epochs=10")
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert re.search(r"cbam100: error: cannot read images of train: .*train/5/.*jpg \(Unidentified", error)


def test_gradients_are_clipped_in_mixed_precision(data_root, run_folder):
    run("fit", *SMALL, "--data.root", data_root, "--trainer.max_epochs=1", "--trainer.max_steps=1",
        "--model.restart_epochs=1", "--trainer.gradient_clip_val=1.0",
        "--trainer.precision=bf16-mixed")  # fmt: skip


@pytest.fixture
def _algorithms_as_before():
    yield
    torch.use_deterministic_algorithms(False)  # which Lightning leaves on


@pytest.mark.usefixtures("_algorithms_as_before")
@pytest.mark.parametrize(("options", "tunes"), [([], True), (["--trainer.deterministic=true"], False)])
def test_only_training_autotunes_kernels(options, tunes, data_root, run_folder, monkeypatch):
    """cuDNN may choose others in another process, where a validation would come to other digits."""
    tuned_in = {}

    def note(kind):
        step = getattr(ImageClassifier, f"{kind}_step")

        def noted(model, batch, batch_idx):
            tuned_in.setdefault(kind, set()).add(torch.backends.cudnn.benchmark)
            if kind == "validation":  # torch keeps kernels of both kinds apart
                assert torch.backends.cudnn.deterministic
            elif kind == "training":
                assert not torch.backends.cudnn.deterministic  # torch's own flag is another
            return step(model, batch, batch_idx)

        monkeypatch.setattr(ImageClassifier, f"{kind}_step", noted)

    for kind in ("training", "validation", "predict"):
        note(kind)
    data = ["--data.root", data_root, *options]
    run("fit", *SMALL, *data, "--trainer.max_epochs=2", "--model.restart_epochs=2")
    assert tuned_in == {"training": {tunes}, "validation": {False}}
    for command in ("validate", "predict"):
        run(command, "--ckpt_path=runs/default/version_0/model.safetensors", "--trainer.accelerator=cpu", *data)
    assert tuned_in == {"training": {tunes}, "validation": {False}, "predict": {False}}


def test_an_evaluation_computes_as_the_fit_did(data_root, run_folder, capsys):
    run("fit", *SMALL, "--data.root", data_root, "--trainer.max_epochs=1", "--trainer.precision=32-true",
        "--model.restart_epochs=1")  # fmt: skip
    best = json.loads(Path("runs/default/version_0/manifest.json").read_text())["best"]["val/loss"]
    for file in ("checkpoints/best.ckpt", "model.safetensors"):
        capsys.readouterr()
        run("validate", "--ckpt_path", f"runs/default/version_0/{file}", "--data.root", data_root)
        assert f"{best:.8f}"[:9] in capsys.readouterr().out
