import json
import re
from pathlib import Path

import pytest
import yaml

from datamodules.files.errors import UserError
from datamodules.files.locks import locked
from scripts.ablation.arms import Arm
from scripts.ablation.runs import Cell, run_all

DATA = {"train": {"images": 48, "sha256": "a"}, "val": {"images": 60, "sha256": "b"}}
BEGUN = {
    "seed_everything": 42,
    "trainer": {"limit_train_batches": 1, "precision": "32-true", "max_time": None, "enable_progress_bar": None},
    "model": {"dropout": 0.3},
    "data": {"root": "data", "num_workers": None},
    "size_budget": {"limit_mb": 100.0},
    "prediction": {"path": "prediction.csv", "top_k": 0},
    "run_name": "x/seed_42",
    "ckpt_path": None,
}


def changed(option, value):
    group, _, name = option.partition(".")
    return {**BEGUN, group: {**BEGUN[group], name: value} if name else value}


def cell(settings, data=DATA):
    return Cell(Arm("x", {}, {}), 42, [], settings, data, "x/seed_42")


@pytest.fixture
def begun(run_folder):
    folder = Path("runs/x/seed_42/version_3")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(BEGUN))
    return folder


@pytest.mark.parametrize(
    ("option", "value", "difference"),
    [
        ("trainer.limit_train_batches", None, "1, now None"),
        ("trainer.limit_train_batches", 1.0, "1, now 1.0"),
        ("trainer.limit_train_batches", True, "1, now True"),
        ("trainer.precision", "bf16-mixed", "32-true, now bf16-mixed"),
        ("trainer.max_time", "00:01:00:00", "None, now 00:01:00:00"),
        ("trainer.new_option", 1, "None, now 1"),
        ("model.dropout", 0.31, "0.3, now 0.31"),
    ],
)
def test_other_settings_are_another_run(option, value, difference, begun):
    sentence = f"{begun} was started with other settings ({option} {difference}): use the same options"
    with pytest.raises(UserError, match=re.escape(sentence)):
        cell(changed(option, value)).require_same_start()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed_everything", 43),
        ("run_name", "y"),
        ("ckpt_path", "last"),
        ("data.root", "/data"),
        ("data.num_workers", 4),
        ("prediction.path", "other.csv"),
        ("trainer.enable_progress_bar", True),
        ("trainer.new_option", None),
    ],
)
def test_what_changes_no_result_may_differ(option, value, begun):
    cell(changed(option, value)).require_same_start()


def test_a_cell_whose_fit_is_still_at_work_is_not_begun_again(begun):
    """As one whose ablation was killed may be, though it has saved nothing yet."""
    with locked(begun), pytest.raises(UserError, match=f"another process is using {begun}: wait until it ends"):
        run_all([cell(BEGUN)])
    cell(BEGUN).require_idle()


def test_other_images_are_another_run(begun):
    (begun / "manifest.json").write_text(json.dumps({"data": DATA, "versions": {}, "events": [{"event": "finished"}]}))
    cell(BEGUN).require_same_start()
    fewer, others = ({**DATA, "val": {"images": count, "sha256": "c"}} for count in (24, 60))
    for data, counts in ((fewer, "48 train, 24 val"), (others, "48 train, 60 val")):
        sentence = f"{begun} was started with other images (48 train, 60 val, now {counts}, differing in names or"
        with pytest.raises(UserError, match=re.escape(sentence)):
            cell(BEGUN, data).require_same_start()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"events": []}', '{"data": {}, "versions": {}, "events": [1]}'])
def test_a_manifest_that_is_none_is_named(content, begun):
    (begun / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=f"{begun} is not the run folder of a fit, as its manifest.json"):
        cell(BEGUN).finished_run()
