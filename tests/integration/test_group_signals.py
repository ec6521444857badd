"""Signals to the whole process group, as terminals, SLURM, systemd and Kubernetes send them, with loader processes."""

import json
import random
import signal
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL
from tests.integration.fork_driver import PREDICTION, SAVING, TRAINING, VALIDATION, all_ended, drive, wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the fork driver needs Linux's /proc"),
]
FIT = ["fit", *(option for option in SMALL if "num_workers" not in option), "--data.batch_size=8",
       "--trainer.max_epochs=2", "--model.restart_epochs=2", "--insight.every_n_epochs=0"]  # fmt: skip
STEPS, SANITY_STEPS = 6, 2  # 48 images of training in batches of 8
WORKERS = "--data.num_workers=2"


def folder(name):
    """The run folder; one that was ended before its first checkpoint stays behind."""
    return next(Path("runs", name).glob("*/checkpoints/last.ckpt")).parents[1]


def state(name):
    return torch.load(folder(name) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def manifest(name):
    return json.loads((folder(name) / "manifest.json").read_text())


def require_equal(name, uninterrupted):
    weights, best = uninterrupted
    came = state(name)
    assert came.keys() == weights.keys()
    assert all(torch.equal(came[key], weights[key]) for key in weights)
    assert manifest(name)["best"] == best
    assert not list(Path("runs", name).rglob("*.part"))


@pytest.fixture(scope="module")
def uninterrupted(data_root, new_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(new_folder("uninterrupted"))
        (outcome,) = drive({"args": [*FIT, f"--data.root={data_root}", "--data.num_workers=0"]})
        assert outcome["code"] == 0, outcome["error"]
        return state("default"), manifest("default")["best"]


@pytest.mark.parametrize(
    ("place", "call", "number", "step"),
    [
        (TRAINING, 3, signal.SIGTERM, 3),
        (TRAINING, 3, signal.SIGHUP, 3),
        (VALIDATION, SANITY_STEPS + 1, signal.SIGTERM, STEPS),  # the epoch is finished first
        (VALIDATION, SANITY_STEPS + 2, signal.SIGUSR1, STEPS),
        ("callbacks.run.checkpoint_io.write_bytes", 1, signal.SIGTERM, STEPS),  # of best.ckpt
    ],
)
def test_a_fit_saves_and_the_resumed_run_ends_alike(place, call, number, step, uninterrupted, data_root, run_folder):
    args = [*FIT, f"--data.root={data_root}", WORKERS]
    stopped, resumed = drive(
        {"args": args, "at": [place, call], "signal": number, "group": True}, {"args": [*args, "--ckpt_path=last"]}
    )
    assert stopped["code"] == 128 + number, stopped["error"]
    assert stopped["error"].count(f"cbam100: {number.name}: ending after this step") == 1  # and by no loader process
    assert "Traceback" not in stopped["error"]
    wait_until(lambda: all_ended(stopped["pid"]))
    assert resumed["code"] == 0, resumed["error"]
    require_equal("default", uninterrupted)
    events = [(event["event"], event["step"]) for event in manifest("default")["events"]]
    assert events == [("started", 0), ("interrupted", step), ("resumed", step), ("finished", 2 * STEPS)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_groups_that_are_ended_at_random(number, uninterrupted, data_root, run_folder):
    moments = random.Random(0)
    code = -number if number == signal.SIGKILL else 128 + number
    ended, runs = 0, 0
    while ended < 20:
        place = (TRAINING, VALIDATION, moments.choice(SAVING))[ended % 3]
        args = [*FIT, f"--data.root={data_root}", WORKERS, "--best.every_n_steps=1", "--ckpt_path=last",
                f"--run_name=run_{runs}"]  # fmt: skip
        (outcome,) = drive({"args": args, "at": [place, moments.randint(1, 6)], "signal": number, "group": True})
        assert outcome["code"] in (0, code), outcome["error"]
        assert "Traceback" not in outcome["error"]
        wait_until(lambda pid=outcome["pid"]: all_ended(pid))
        ended += outcome["code"] == code
        runs += outcome["code"] == 0  # the next one begins anew
    (outcome,) = drive({"args": args})
    assert outcome["code"] == 0, outcome["error"]
    for run in Path("runs").iterdir():
        require_equal(run.name, uninterrupted)


def test_a_kill_after_the_last_checkpoint_is_made_good_by_the_next_start(uninterrupted, data_root, run_folder):
    args = [*FIT, f"--data.root={data_root}", WORKERS]
    before_the_last_epochs_manifest = ["callbacks.run.manifest.write_json", 3]
    killed, finished, again = drive(
        {"args": args, "at": before_the_last_epochs_manifest, "signal": signal.SIGKILL, "group": True},
        *2 * [{"args": [*args, "--ckpt_path=last"]}],
    )
    assert [outcome["code"] for outcome in (killed, finished, again)] == [-signal.SIGKILL, 0, 0], again["error"]
    require_equal("default", uninterrupted)
    assert [event["event"] for event in manifest("default")["events"]] == ["started", "finished"]


@pytest.mark.parametrize(("command", "place"), [("validate", VALIDATION), ("predict", PREDICTION)])
def test_an_evaluation_ends_after_the_batch(command, place, trained, data_root, run_folder):
    args = [command, f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}", WORKERS,
            "--data.batch_size=1", "--trainer.accelerator=cpu"]  # fmt: skip
    (outcome,) = drive({"args": args, "at": [place, 2], "signal": signal.SIGTERM, "group": True})
    assert outcome["code"] == 143, outcome["error"]
    assert "Traceback" not in outcome["error"]
    assert list(run_folder.iterdir()) == []
    wait_until(lambda: all_ended(outcome["pid"]))


def test_two_processes_end_together(data_root, run_folder):
    ddp = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4", "--data.num_workers=1"]
    args = [*FIT, f"--data.root={data_root}", *ddp]
    whole, stopped, resumed = drive(
        {"args": [*args, "--run_name=whole"]},
        {"args": args, "at": [VALIDATION, SANITY_STEPS + 1], "signal": signal.SIGTERM, "group": True},
        {"args": [*args, "--ckpt_path=last"]},
    )
    assert [outcome["code"] for outcome in (whole, stopped, resumed)] == [0, 143, 0], stopped["error"]
    assert manifest("default")["events"][1]["by"] == "SIGTERM"
    wait_until(lambda: all_ended(stopped["pid"]))
    expected, came = state("whole"), state("default")
    assert all(torch.equal(came[key], expected[key]) for key in expected)


def test_loader_processes_end_with_a_run_that_is_killed(data_root, run_folder):
    args = [*FIT, f"--data.root={data_root}", WORKERS]
    (outcome,) = drive({"args": args, "at": [TRAINING, 2], "signal": signal.SIGKILL})
    assert outcome["code"] == -signal.SIGKILL
    wait_until(lambda: all_ended(outcome["pid"]))
