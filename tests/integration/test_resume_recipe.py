"""Runs whose recipe depends on epochs and steps, resumed anywhere: the same bits, or a refusal."""

from pathlib import Path

import pytest

from tests.integration.test_resume import FIT, differences, fit, fit_and_keep, load, some_of

pytestmark = pytest.mark.filterwarnings("ignore:the temperature stays at its bound")  # of so small a network

# 48 images in batches of 8: 6 steps in each of 2 epochs. Warm-up ends inside the first, where the trunk is frozen.
OPTIMISATION = [
    "--model.schedule=cosine", "--model.warmup_epochs=0.7", "--model.trunk_learning_rate_ratio=0.5",
    "--model.layer_decay=0.8", "--model.weight_decay_on=matrices", "--model.freeze_trunk_epochs=1",
]  # fmt: skip
RECIPE = [
    *OPTIMISATION,
    "--model.class_weights=effective", "--model.label_smoothing=0.1", "--model.drop_path=0.2",
    "--model.ema_decay=auto", "--model.temperature=fit",
    "--data.augmentation=trivial", "--data.crop_scale=[0.5,1.0]", "--data.random_erasing=0.5",
    "--data.mixup_alpha=0.2", "--data.cutmix_alpha=1", "--data.mix_probability=0.7", "--data.plain_epochs=1",
    "--data.progressive=24@0.5,32@1",
]  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(data_root, new_folder):
    return fit_and_keep(new_folder("recipe"), data_root, *RECIPE)


@pytest.mark.parametrize("saved", some_of(range(1, 12), {3, 6, 9}))  # steps of 12; 6 is at an epoch's end
def test_every_saved_state_leads_to_the_same_end(saved, uninterrupted, data_root, run_folder):
    fit(data_root, *RECIPE, f"--ckpt_path={uninterrupted / 'saved' / f'{saved}.ckpt'}")
    ended, expected = (
        load(Path(folder) / "runs/default/version_0/checkpoints/last.ckpt") for folder in (".", uninterrupted)
    )
    assert differences(expected, ended) == []
    assert [group["lr"] for group in ended["optimizer_states"][0]["param_groups"][::2]] == pytest.approx(
        [1e-5, *(1e-5 * 0.5 * 0.8**distance for distance in range(1, 6))], rel=1e-12
    )


@pytest.mark.slow
def test_warm_restarts_with_a_frozen_start_too(data_root, run_folder, new_folder):
    options = ["--model.freeze_trunk_epochs=1", "--model.restart_epochs=1", "--model.restart_multiplier=1"]
    whole = fit_and_keep(new_folder("restarts"), data_root, *options)
    for saved in (3, 6, 9):
        fit(data_root, *options, f"--ckpt_path={whole / 'saved' / f'{saved}.ckpt'}", f"--run_name=from_{saved}")
        ended = load(f"runs/from_{saved}/version_0/checkpoints/last.ckpt")
        assert differences(load(whole / "runs/default/version_0/checkpoints/last.ckpt"), ended) == []


def test_another_length_is_refused(uninterrupted, refusal, data_root, run_folder):
    words = [*FIT, f"--data.root={data_root}", *RECIPE, f"--ckpt_path={uninterrupted / 'saved' / '3.ckpt'}"]
    assert refusal("fit", *words, "--trainer.max_epochs=3") == (
        "cbam100: error: this run is not as long as the checkpoint's (max_epochs 3 instead of 2), which matters to "
        "--model.schedule cosine, --model.ema_decay auto, --data.progressive 24@0.5,32@1, --data.plain_epochs 1: "
        "resume with --trainer.max_epochs 2 --trainer.max_steps -1, or start a new one from its weights with "
        "--model.weights model.safetensors"
    )


def test_a_finished_run_is_not_told_to_go_on(uninterrupted, data_root, run_folder, capsys):
    fit(data_root, *RECIPE, f"--ckpt_path={uninterrupted / 'runs/default/version_0/checkpoints/last.ckpt'}")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "nothing is left to do" in line)
    assert line.endswith("has done its 2 epochs: nothing is left to do")


def test_max_steps_may_be_the_length(data_root, run_folder, new_folder):
    options = [*OPTIMISATION, "--trainer.max_epochs=-1", "--trainer.max_steps=9"]
    whole = fit_and_keep(new_folder("steps"), data_root, *options)
    fit(data_root, *options, f"--ckpt_path={whole / 'saved' / '4.ckpt'}")
    ended, expected = (load(Path(folder) / "runs/default/version_0/checkpoints/last.ckpt") for folder in (".", whole))
    assert differences(expected, ended) == []
