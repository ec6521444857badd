import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from callbacks.predictions.out_of_fold import OutOfFold
from datamodules.files.errors import UserError
from scripts.ablation.arms import Arm, combinations, factor_pairs, ladder_pairs
from scripts.ablation.outcomes import Outcome, differences
from scripts.ablation.table import require_free, write_tables

DATA = {"train": {"images": 10, "sha256": "a"}, "val": {"images": 5, "sha256": "b"}}


ARMS = combinations(["model.loss=focal,cross_entropy", "model.attention=cbam,none"])
PAIRS = factor_pairs(ARMS)


def outcome(arm, seed, accuracy, data=DATA):
    scalars = {
        "train/accuracy": {0: 0.1, 1: 0.5},
        "val/accuracy": {0: 0.9, 1: accuracy},
        "val/accuracy_macro": {0: 0.1, 1: accuracy / 2},
        "val/nll": {0: 3.0, 1: 2.0},
        "val/ece": {0: 0.3, 1: 0.2},
        "epoch_seconds": {0: 9.0, 1: 11.0},
    }
    return Outcome(Path("runs/x/version_0"), arm, seed, scalars, 95_412_952, data, 1, "2.10.0")


@pytest.fixture
def outcomes():
    accuracies = (
        (0.50, 0.60, 0.70),  # focal, cbam
        (0.51, 0.59, 0.70),  # focal, none
        (0.53, 0.632, 0.728),  # cross_entropy, cbam
        (0.70, 0.50, 0.60),  # cross_entropy, none
    )
    return [
        outcome(arm, seed, value)
        for arm, values in zip(ARMS, accuracies, strict=True)
        for seed, value in enumerate(values)
    ]


def test_differences_are_taken_seed_by_seed(outcomes):
    found = {difference.name: difference for difference in differences(outcomes, PAIRS)}
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
    write_tables(tmp_path, outcomes, PAIRS, "cbam100 ablate …")
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
    runs = [outcome(arm, seed, 0.5, data) for arm in ARMS[:2] for seed, data in enumerate((DATA, others))]
    last = dataclasses.replace(runs[3], torch_version="2.11.0", processes=4)
    write_tables(tmp_path, [*runs[:3], last], ladder_pairs(ARMS[:2]), "")
    text = (tmp_path / "ablation.md").read_text()
    assert "; processes: 1, 4; torch 2.10.0, 2.11.0." in text
    assert "on the validation images that each seed holds out." in text


def test_one_seed_says_nothing(outcomes, tmp_path):
    alone = [o for o in outcomes if o.seed == 0]
    (first, *_) = differences(alone, PAIRS)
    assert "one seed does not show the noise" in first.sentence
    write_tables(tmp_path, alone, PAIRS, "cbam100 ablate …")
    text = (tmp_path / "ablation.md").read_text()
    assert text.splitlines()[-1].startswith("One run of each does not show the noise, so no interval can be given.")
    # 53 − 50 points, half as many of balanced accuracy
    assert "| model.loss: cross_entropy − focal (model.attention=cbam) | +3.00 | +1.50 | +0.000 | +0.000 |" in text


def test_folds_are_compared_fold_by_fold_and_said_to_share_images(outcomes, tmp_path):
    folds = [dataclasses.replace(o, seed=42, fold=o.seed) for o in outcomes]
    assert differences(folds, PAIRS)[0].estimates == differences(outcomes, PAIRS)[0].estimates
    right = np.array([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, np.nan]])
    probability = np.stack([1 - right.ravel(), right.ravel()], axis=1)
    every = OutOfFold([*"abcdefghijkl"], ["x", "y"], np.ones(12, int), np.arange(12) // 4, probability)
    write_tables(tmp_path, folds, PAIRS, "cbam100 ablate …", {ARMS[0].name: every})
    text = (tmp_path / "ablation.md").read_text()
    wilson = scipy.stats.binomtest(8, 11).proportion_ci(method="wilson")
    interval = f"[{100 * wilson.low:.2f}, {100 * wilson.high:.2f}]"
    # 75, 100 and 33.33 %: mean 69.44, standard deviation 33.68
    assert f"| {ARMS[0].name} | 69.44 ± 33.68 | 8 of 11 | 72.73 {interval} |" in text
    assert text.index("69.44") < text.index("Student's t")
    assert "understate the noise, as two of 3 runs share about 50 % of their training images." in text  # 1 of 2 parts
    assert "Differences, fold by fold, with" in text
    with open(tmp_path / "ablation_runs.csv", newline="") as file:
        assert [(run["seed"], run["fold"]) for run in csv.DictReader(file)][:3] == [
            ("42", "0"),
            ("42", "1"),
            ("42", "2"),
        ]
    require_free(tmp_path, ["model.loss", "model.attention", "fold"])
    with pytest.raises(UserError, match=r"attention, fold, not model\.loss, model\.attention: choose another --name"):
        require_free(tmp_path, ["model.loss", "model.attention"])


def named_arms(**seeds):
    return [Arm(name, {"arm": name}, {"seed_everything": seed} if seed else {}) for name, seed in seeds.items()]


def test_an_arm_with_other_seeds_is_compared_unpaired(tmp_path):
    arms = named_arms(base=None, more=None, other=7)
    rates = {"base": (0.50, 0.60, 0.70), "more": (0.53, 0.632, 0.728), "other": (0.80, 0.84)}
    runs = [
        outcome(arm, int(arm.options.get("seed_everything", 42)) + place, rate)
        for arm in arms
        for place, rate in enumerate(rates[arm.name])
    ]
    paired, *others = differences(runs, ladder_pairs(arms))
    assert paired.name == "more − base"
    assert paired.estimates["val acc. %, last epoch"].low == pytest.approx(3.0 - 4.30265 * 0.2 / 3**0.5, abs=1e-4)
    assert [other.name for other in others] == [f"other − {base} (other seeds, unpaired)" for base in ("more", "base")]
    # 82 − 60 points, with variances 100 and 8 over 3 and 2 runs; scipy's Welch test is a second implementation
    welch = scipy.stats.ttest_ind([80, 84], [50, 60, 70], equal_var=False)
    interval = welch.confidence_interval(0.95)
    value = others[1].estimates["val acc. %, last epoch"]
    assert welch.df == pytest.approx((100 / 3 + 4) ** 2 / ((100 / 3) ** 2 / 2 + 4**2))
    assert (value.mean, value.low, value.high) == pytest.approx((22, interval.low, interval.high))
    write_tables(tmp_path, runs, ladder_pairs(arms), "cbam100 ablate …")
    text = (tmp_path / "ablation.md").read_text()
    assert "unpaired where the arms have other seeds (Welch's t):" in text
    assert "- base: no options of its own\n- more: no options of its own\n- other: seed_everything=7\n" in text
    with open(tmp_path / "ablation_runs.csv", newline="") as file:
        assert [(run["arm"], run["seed"]) for run in csv.DictReader(file)][-3:] == [
            ("more", "44"), ("other", "7"), ("other", "8"),
        ]  # fmt: skip


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
        write_tables(tmp_path, outcomes, PAIRS, "cbam100 ablate …")
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
