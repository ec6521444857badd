import csv
import dataclasses
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from scripts.ablation.outcomes import Outcome, differences
from scripts.ablation.table import require_free, write_tables

DATA = {"train": {"images": 10, "sha256": "a"}, "val": {"images": 5, "sha256": "b"}}


def outcome(loss, attention, seed, accuracy, data=DATA):
    scalars = {
        "train/accuracy": {0: 0.1, 1: 0.5},
        "val/accuracy": {0: 0.9, 1: accuracy},
        "val/accuracy_macro": {0: 0.1, 1: accuracy / 2},
        "val/nll": {0: 3.0, 1: 2.0},
        "val/ece": {0: 0.3, 1: 0.2},
        "epoch_seconds": {0: 9.0, 1: 11.0},
    }
    levels = {"model.loss": loss, "model.attention": attention}
    return Outcome(Path("runs/x/version_0"), levels, seed, scalars, 95_412_952, data, 1, "2.10.0")


@pytest.fixture
def outcomes():
    accuracies = {
        ("focal", "cbam"): (0.50, 0.60, 0.70),
        ("focal", "none"): (0.51, 0.59, 0.70),
        ("cross_entropy", "cbam"): (0.53, 0.632, 0.728),
        ("cross_entropy", "none"): (0.70, 0.50, 0.60),
    }
    return [
        outcome(loss, attention, seed, value)
        for (loss, attention), values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def test_differences_are_taken_seed_by_seed(outcomes):
    found = {difference.name: difference for difference in differences(outcomes)}
    assert len(found) == 4
    loss = found["model.loss: cross_entropy − focal (model.attention=cbam)"]
    estimate = loss.estimates["val acc. %, last epoch"]
    # 3.0, 3.2, 2.8 points; Student's t for 2 degrees of freedom 4.30265, standard error 0.2 / √3
    assert estimate.mean == pytest.approx(3.0)
    assert estimate.low == pytest.approx(3.0 - 4.30265 * 0.2 / 3**0.5, abs=1e-4)
    assert "cross_entropy is better by 3.00 points" in loss.sentence
    assert "+2.50 to +3.50" in loss.sentence
    # 10 points apart on two of three seeds, either way: the mean of cells differs as much, and it is noise
    assert found["model.loss: cross_entropy − focal (model.attention=none)"].sentence.endswith(
        "no difference larger than the noise."
    )
    assert "model.attention: none − cbam (model.loss=focal)" in found


def test_the_tables(outcomes, tmp_path):
    write_tables(tmp_path, outcomes, "cbam100 ablate …")
    text = (tmp_path / "ablation.md").read_text()
    assert "; processes: 1; torch 2.10.0." in text
    assert "on these validation images." in text
    row = next(line for line in text.splitlines() if line.startswith("| model.loss=focal, model.attention=cbam |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "50.00 ± 0.00 [50.00, 50.00]"
    assert cells[2] == "60.00 ± 10.00 [35.16, 84.84]"  # 60 ± 4.30265 · 10 / √3
    assert cells[3] == "90.00 ± 0.00 [90.00, 90.00]"
    assert cells[4] == "30.00 ± 5.00 [17.58, 42.42]"
    assert cells[5:] == ["2.000 ± 0.000 [2.000, 2.000]", "0.200 ± 0.000 [0.200, 0.200]", "10", "95.41 MB (90.99 MiB)"]
    with open(tmp_path / "ablation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["model.attention"] for r in rows] == ["cbam", "none", "cbam", "none"]
    assert float(rows[0]["val acc. %, last epoch mean"]) == pytest.approx(60)
    with open(tmp_path / "ablation_runs.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    assert [float(run["val acc. %, last epoch"]) for run in runs[:3]] == pytest.approx([50, 60, 70])
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_says_what_the_runs_did_not_share(tmp_path):
    others = {**DATA, "val": {"images": 5, "sha256": "c"}}
    runs = [outcome(loss, "cbam", seed, 0.5, data) for loss in ("a", "b") for seed, data in enumerate((DATA, others))]
    write_tables(tmp_path, [*runs[:3], dataclasses.replace(runs[3], torch_version="2.11.0", processes=4)], "")
    text = (tmp_path / "ablation.md").read_text()
    assert "; processes: 1, 4; torch 2.10.0, 2.11.0." in text
    assert "on the validation images that each seed holds out." in text


def test_one_seed_says_nothing(outcomes):
    (first, *_) = differences([o for o in outcomes if o.seed == 0])
    assert "one seed does not show the noise" in first.sentence


def test_a_run_without_a_number_is_named(outcomes):
    run = outcomes[0]
    for missing in ("val/accuracy", "epoch_seconds"):
        scalars = {name: values for name, values in run.scalars.items() if name != missing}
        with pytest.raises(UserError, match=f"runs/x/version_0 has no {missing} among TensorBoard's scalars"):
            _ = dataclasses.replace(run, scalars=scalars).measures


def test_a_table_is_replaced_by_one_of_the_same_options_only(outcomes, tmp_path):
    options = ["model.loss", "model.attention"]
    for _ in range(2):
        require_free(tmp_path, options)
        write_tables(tmp_path, outcomes, "cbam100 ablate …")
    require_free(tmp_path, options[::-1])
    with pytest.raises(UserError, match=r"varies model\.loss, model\.attention, not model\.loss: choose another"):
        require_free(tmp_path, ["model.loss"])
    for name in ("ablation.md", "ablation.png", "ablation.csv", "ablation_runs.csv"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text("mine")
        with pytest.raises(
            UserError, match=f"{name} exists .* not overwritten: move it away, or choose another --name"
        ):
            require_free(tmp_path, options)
        (tmp_path / name).write_bytes(content)
