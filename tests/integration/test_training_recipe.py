"""A fit with everything that changes training images between epochs, and its resume inside each part."""

from pathlib import Path

import pytest
import yaml

from scripts.main import main
from tests.conftest import SMALL
from tests.integration.test_resume import differences, kept_states, load

# 48 images in batches of 8: 6 steps an epoch. Epochs of 24, 40 and 32 pixels, the last without mixing and erasing.
FIT = ["fit", *SMALL, "--data.batch_size=8", "--trainer.max_epochs=3", "--model.restart_epochs=3",
       "--best.every_n_steps=4", "--data.progressive=24@0.34,40@0.67,32@1", "--data.plain_epochs=1",
       "--data.augmentation=trivial", "--data.crop_scale=[0.5,1.0]", "--data.random_erasing=0.5",
       "--data.mixup_alpha=0.4", "--data.cutmix_alpha=1.0", "--data.mix_probability=0.8"]  # fmt: skip
LAST = Path("runs/default/version_0/checkpoints/last.ckpt")


@pytest.fixture(scope="module")
def uninterrupted(data_root, new_folder):
    folder = new_folder("uninterrupted")
    with kept_states(folder):
        main([*FIT, f"--data.root={data_root}"])
    return folder


@pytest.mark.parametrize("steps", [4, 8, 16])
def test_a_resume_inside_each_part_leads_to_the_same_end(steps, uninterrupted, data_root, run_folder):
    saved = uninterrupted / "saved" / f"{steps}.ckpt"
    workers = ["--data.num_workers=2"] if steps == 8 else []
    main([*FIT, f"--data.root={data_root}", f"--ckpt_path={saved}", *workers])
    ended, expected = load(LAST), load(uninterrupted / LAST)
    for part in ("datamodule_hyper_parameters", "hyper_parameters"):  # which hold the number of workers
        del ended[part], expected[part]
    assert differences(expected, ended) == []


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--trainer.max_epochs=-1", "--data.progressive 24@0.34,40@0.67,32@1 needs a run whose length is known in"),
        ("--trainer.max_epochs=2", "leaves no epoch for 24 pixels in a run of --trainer.max_epochs 2"),
        ("--data.progressive=24@0.5", "the shares of --data.progressive must rise from above 0 to 1, got 24@0.5"),
        ("--data.crop_scale=[0.5,2]", "--data.crop_scale must be the smallest and the largest share of an image's"),
        ("--data.crop_scale=0.5", "--data.crop_scale must be two numbers in brackets like [0.5,1.0], got 0.5 ("),
        ("--data.crop_scale=[0.5]", "--data.crop_scale must be two numbers in brackets like [0.5,1.0], got [0.5] ("),
        ("--data.mixup_alpha=.nan", "--data.mixup_alpha must be between 0 and 100, got nan"),
        ("--data.cache=ram --data.augmentation=reference", "cannot be combined with --data.augmentation reference"),
    ],
)
def test_refuses(option, sentence, data_root, run_folder, refusal):
    assert sentence in refusal(*FIT, f"--data.root={data_root}", *option.split())


def test_a_trial_run_needs_no_length(data_root, run_folder):
    main([*FIT, f"--data.root={data_root}", "--trainer.fast_dev_run=true", "--model.restart_epochs=1"])


def test_one_class_cannot_be_mixed(data_root, run_folder, refusal, tmp_path):
    (tmp_path / "root" / "train" / "only").mkdir(parents=True)
    assert "2 or more classes, found 1" in refusal(*FIT, f"--data.root={tmp_path / 'root'}")


def test_options_are_plain_in_the_checkpoint_and_in_the_config(uninterrupted):
    config = yaml.safe_load((uninterrupted / LAST.parents[1] / "config.yaml").read_text())
    assert config["data"]["crop_scale"] == [0.5, 1.0]
    options = load(uninterrupted / LAST)["datamodule_hyper_parameters"]
    assert options["crop_scale"] == (0.5, 1.0)
    assert options["progressive"] == "24@0.34,40@0.67,32@1"
