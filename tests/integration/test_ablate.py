import csv
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from scripts.ablation import ablate
from scripts.ablation import command as module
from scripts.environment import module_process
from scripts.hardware import default_precision
from tests.conftest import SMALL
from tests.integration.fork_driver import TRAINING, drive

VARY = ["--vary", "model.loss=focal,cross_entropy", "--seeds", "1"]


@pytest.fixture
def words(data_root):
    fit = [*SMALL, f"--data.root={data_root}", "--trainer.max_epochs=2", "--model.restart_epochs=2"]
    return ["ablate", *VARY, *fit]


def run_folders(folder):
    return sorted(path.parent for path in (folder / "runs" / "ablation_default").glob("*/*/version_*/manifest.json"))


def events(run):
    return [event["event"] for event in json.loads((run / "manifest.json").read_text())["events"]]


def table(folder):
    """What does not depend on the clock."""
    with open(folder / "runs" / "ablation_default" / "ablation_runs.csv", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "s/epoch"} for row in csv.DictReader(file)]
    text = (folder / "runs" / "ablation_default" / "ablation.md").read_text()
    differences = text[text.index("Differences") :]
    return rows, differences


@pytest.mark.processes
def test_an_interrupted_ablation_goes_on_to_the_same_table(words, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    monkeypatch.chdir(whole)
    (outcome,) = drive({"args": words})
    assert outcome["code"] == 0, outcome["error"]

    monkeypatch.chdir(broken)
    second = "--model.loss=cross_entropy"  # whose fit, in its second step, has the ablation interrupted
    (outcome,) = drive(
        {"args": words, "at": [TRAINING, 2], "word": second, "signal": signal.SIGTERM, "to": "parent"},
    )
    assert outcome["code"] == 143, outcome["error"]
    stopped, finished = run_folders(broken)
    assert events(finished) == ["started", "finished"]
    assert events(stopped) == ["started", "interrupted"]
    stamp = (finished / "manifest.json").stat().st_mtime_ns

    (outcome,) = drive({"args": words})
    assert outcome["code"] == 0, outcome["error"]
    assert outcome["output"].count("already finished, skipped") == 1
    assert (finished / "manifest.json").stat().st_mtime_ns == stamp
    assert run_folders(broken) == [stopped, finished]
    assert events(stopped) == ["started", "interrupted", "resumed", "finished"]
    assert table(broken) == table(whole)


@pytest.mark.processes
def test_folds_that_were_interrupted_or_killed_go_on_to_the_same_answers(data_root, run_folder):
    root = shutil.copytree(data_root / "train", "photos")
    fit = [*SMALL, f"--data.root={root}", "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2"]
    whole, ended, killed = ({"args": ["ablate", "--folds=2", f"--name={name}", *fit]} for name in ("a", "b", "c"))
    at = {"at": [TRAINING, 5], "word": "--data.fold=1"}  # in the second fit and epoch, of 3 steps
    begun = drive(
        whole, {**ended, **at, "signal": signal.SIGTERM, "to": "parent"}, {**killed, **at, "signal": signal.SIGKILL}
    )
    assert [outcome["code"] for outcome in begun] == [0, 143, 2], begun
    tables = [Path("runs", name, "out_of_fold.csv") for name in ("a", "b", "c")]
    assert [table.exists() for table in tables] == [True, False, False]
    again = drive(ended, killed)
    assert [outcome["code"] for outcome in again] == [0, 0], again
    assert [outcome["output"].count("already finished, skipped") for outcome in again] == [1, 1]
    expected, *others = (table.read_bytes() for table in tables)
    assert others == [expected, expected]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--vary", "model.loss=focal"], "two or more different values"),
        (["--vary", "model.loss=focal,focal"], "two or more different values"),
        (["--vary", "model.loss=focal,nonsense"], "model.loss"),
        (["--vary", "model.no_such=1,2"], "no_such"),
        (["--vary", "seed_everything=1,2"], "--vary cannot take seed_everything"),
        (["--vary", "data.root=a,b"], "--vary cannot take data.root"),
        (
            ["--vary", "model.loss=focal,cross_entropy", "--run_name=x"],
            "ablate sets --run_name itself",
        ),
        (["--vary", "model.loss=focal,cross_entropy", "--vary", f"model.weights=none,{'x' * 200}"], "vary fewer"),
        (["--vary", "model.loss=focal,cross_entropy", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        ([], "pass one of the two"),
        (["--vary", "model.loss=focal,cross_entropy", "--arms", "arms.yaml"], "pass one of the two"),
        (
            ["--vary", "model.learning_rate=1e-3,0.001"],
            "model.learning_rate=1e-3 and 0.001 are the same setting",
        ),
        (["--vary", "model.dropout=0,0.0"], "model.dropout=0 and 0.0 are the same setting"),
        (["--vary", "trainer.gradient_clip_val=1,1.0"], "trainer.gradient_clip_val=1 and 1.0 are the same setting"),
        (["--vary", "model.loss=focal,cross_entropy", "--seed_everything=true"], "2^32 - 1, got True"),
        (["--vary", "model.loss=focal,cross_entropy", "--seed_everything=4294967294"], "2^32 - 1, got 4294967296"),
    ],
)
def test_mistakes_are_told_before_anything_runs(words, sentence, data_root, run_folder, refusal):
    assert sentence in refusal("ablate", *words, *SMALL, f"--data.root={data_root}")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ("{model.no_such: 1}", "no_such"),
        (
            "{model.loss: nonsense}",
            "the arm two cannot be run: --model.loss must be focal or cross_entropy, got nonsense",
        ),
        (
            "{model.focal_gamma: -1}",
            "the arm two cannot be run: --model.focal_gamma must be a finite number of at least 0, got -1.0",
        ),
        ("{model.learning_rate: 1e-6}", "the arm two cannot be run: --model.min_learning_rate 1e-05 is above"),
        ("{data.cache: ram, data.augmentation: reference}", "--data.cache ram cannot be combined with"),
        ("{model.dropout: 0.30}", "arm=one and two are the same setting: leave one out"),
        ("{data.root: elsewhere}", "elsewhere"),
        ("{data.val_fraction: 0.2}", "one and two have another --data.val_fraction, so other images"),
        ("{run_name: x}", "ablate sets --run_name itself"),
        ("{seed_everything: 4294967295}", "2^32 - 1, got 4294967296"),
    ],
)
def test_mistakes_in_arms_are_told_before_anything_runs(second, sentence, data_root, run_folder, refusal):
    Path("arms.yaml").write_text(f"one:\ntwo: {second}\n")
    words = ["--arms=arms.yaml", "--seeds=2", *SMALL, f"--data.root={data_root}"]
    assert sentence in refusal("ablate", *words)
    assert not Path("runs").exists()


@pytest.mark.processes
def test_arms_run_once_and_are_compared(data_root, run_folder):
    Path("arms.yaml").write_text("plain:\nno cbam: {model.attention: none}\nagain: {seed_everything: 7}\n")
    words = ["ablate", "--arms=arms.yaml", "--seeds=1", *SMALL, f"--data.root={data_root}"]
    words += ["--trainer.max_epochs=1", "--model.restart_epochs=1"]
    first, second = drive({"args": words}), drive({"args": words})
    assert [outcome["code"] for outcome in (*first, *second)] == [0, 0], first
    assert "no cbam, seed 42: epoch 1/1, val/accuracy" in first[0]["output"]
    assert second[0]["output"].count("already finished, skipped") == 3
    folder = Path("runs/ablation_arms")
    with open(folder / "ablation_runs.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(run["arm"], run["seed"]) for run in runs] == [("plain", "42"), ("no cbam", "42"), ("again", "7")]
    for run in runs:
        assert (folder / run["arm"] / f"seed_{run['seed']}" / "version_0/model.safetensors").exists()
    accuracy = [float(run["val acc. %, last epoch"]) for run in runs]
    for name, base, other in (("no cbam − plain", 0, 1), ("again − no cbam (other seeds, unpaired)", 1, 2)):
        assert f"| {name} | {accuracy[other] - accuracy[base]:+.2f} |" in (folder / "ablation.md").read_text()


def test_the_function_returns_the_table(data_root, run_folder, monkeypatch):
    """Without its fits, which the tests of the command run."""
    began, written = [], []
    monkeypatch.setattr(module, "run_all", began.extend)
    monkeypatch.setattr(module, "outcome_of", lambda cell: cell.run_name)
    monkeypatch.setattr(
        module, "write_tables", lambda folder, outcomes, pairs, command, answers: written.append(command)
    )
    fit = [*SMALL, f"--data.root={data_root}"]
    assert ablate(["model.loss=focal,cross_entropy"], fit, seeds=2) == Path("runs/ablation_default/ablation.md")
    assert [(cell.arm.options["model.loss"], cell.seed) for cell in began] == [
        ("focal", 42), ("focal", 43), ("cross_entropy", 42), ("cross_entropy", 43),
    ]  # fmt: skip
    assert written[0].startswith("cbam100 ablate --vary model.loss=focal,cross_entropy --seeds 2 --trainer.accelerator")
    with pytest.raises(UserError, match="--seeds must be at least 1, got 0"):
        ablate(["model.loss=focal,cross_entropy"], fit, seeds=0)


@pytest.mark.processes
def test_a_fit_that_fails_says_why(data_root, run_folder):
    vary = ["ablate", *VARY, *SMALL, f"--data.root={data_root}"]
    large, fast = drive(
        {"args": [*vary, "--size_budget.limit_mb=0.1"]},
        {"args": [*vary, "--trainer.fast_dev_run=true", "--name=fast"]},
    )
    assert (large["code"], fast["code"]) == (2, 2)
    assert re.search(r"the fit of .* ended with 2 \(.*0\.10 MB", large["error"])
    assert "left no finished run folder with checkpoints" in fast["error"]


@pytest.mark.processes
def test_runs_of_other_settings_or_images_are_not_reported_as_its_own(data_root, run_folder):
    root = Path(shutil.copytree(data_root, "data", ignore=shutil.ignore_patterns("val")))  # each seed holds out some
    Path("small.yaml").write_text("model:\n  dropout: 0.2\n")
    short = ["ablate", "--config=small.yaml", *SMALL, "--trainer.max_epochs=1", "--model.restart_epochs=1"]
    words = [*short, *VARY, f"--data.root={root}", "--trainer.limit_train_batches=1"]
    (begun,) = drive({"args": words})
    assert begun["code"] == 0, begun["error"]
    table = Path("runs/ablation_small/ablation.md").read_bytes()

    def refused(*words):
        (outcome,) = drive({"args": words})
        assert outcome["code"] == 2
        return outcome["error"]

    assert "(trainer.limit_train_batches 1, now None): use" in refused(*words[:-1])
    Path("small.yaml").write_text("model:\n  dropout: 0.1\n")
    assert "(model.dropout 0.2, now 0.1): use the same options" in refused(*words)
    Path("small.yaml").write_text("model:\n  dropout: 0.2\n")
    image = next((root / "train/3").iterdir())
    image.rename("image.jpg")
    assert "(36 train, 12 val, now 35 train, 12 val, differing in names or sizes" in refused(*words, "--seeds=2")
    Path("image.jpg").rename(image)
    assert Path("runs/ablation_small/ablation.md").read_bytes() == table

    root.rename("moved")  # neither this nor how they are loaded makes other runs, nor what this machine fills in
    precision = f"--trainer.precision={default_precision('cpu')}"
    moved = [*short, *VARY, "--data.root=moved", "--trainer.limit_train_batches=1", "--data.num_workers=1", precision]
    (again,) = drive({"args": moved})
    assert again["output"].count("already finished, skipped") == 2


def test_what_else_lies_in_the_working_directory_is_not_run(run_folder):
    (run_folder / "scripts").mkdir()
    (run_folder / "scripts" / "__init__.py").touch()
    subprocess.run(**module_process("scripts.main", "--help"), check=True, capture_output=True)
