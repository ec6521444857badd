"""A process that is killed takes the others with it, and no prediction appears."""

import signal
from pathlib import Path

import pytest

from tests.integration.fork_driver import BEGINNING, PREDICTION, all_ended, drive, wait_until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the fork driver needs Linux's /proc"),
]
DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]


def predict_and_kill(trained, data_root, **plan):
    """The first process's exit code, once both have ended."""
    args = ["predict", "--ckpt_path", trained / "model.safetensors", "--data.root", data_root, "--data.batch_size=1",
            "--data.num_workers=0", *DDP]  # fmt: skip
    (outcome,) = drive({"args": args, "signal": signal.SIGKILL, **plan})
    wait_until(lambda: all_ended(outcome["pid"]))
    assert list(Path().iterdir()) == []
    return outcome["code"]


@pytest.mark.parametrize("victim", [0, 1], ids=["first", "second"])
def test_killing_one_of_two_ends_both(victim, trained, data_root, run_folder):
    assert predict_and_kill(trained, data_root, at=[PREDICTION, 3], rank=victim) != 0


def test_killing_the_first_while_the_second_starts_ends_it_too(trained, data_root, run_folder):
    """The second imports libraries, and will wait for the first to join."""
    assert predict_and_kill(trained, data_root, at=[BEGINNING, 1], rank=1, to="parent") == -signal.SIGKILL
