"""A process that is killed takes the others with it, and no prediction appears."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in Linux's /proc")
SECONDS = 60
DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds} s"
        time.sleep(0.2)


@pytest.mark.parametrize("victim", ["first", "second"])
def test_killing_one_of_two_ends_both(victim, trained, data_root, run_folder):
    image = next((data_root / "test").iterdir())
    many = run_folder / "many"
    many.mkdir()
    for number in range(20_000):  # minutes of work, so that the kill comes in its middle
        os.link(image, many / f"{number}.jpg") if number else shutil.copy(image, many / "0.jpg")
    command = [Path(sys.executable).parent / "cbam100", "predict", "--ckpt_path", trained / "model.safetensors",
               "--data.root", data_root, "--data.predict_dir", many, "--data.batch_size=1", "--data.num_workers=0",
               *DDP]  # fmt: skip
    with open("log.txt", "w") as log:
        first = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
    wait_for(lambda: "Starting with 2 processes" in Path("log.txt").read_text(), 120)
    time.sleep(4)  # by then it is in the predict loop, and far from its end
    (second,) = (pid for pid in children(first.pid))
    assert first.poll() is None
    os.kill(first.pid if victim == "first" else second, signal.SIGKILL)
    assert first.wait(SECONDS) != 0
    wait_for(lambda: ended(second), SECONDS)
    assert not list(run_folder.glob("*prediction*"))


def test_killing_the_first_while_the_second_starts_ends_it_too(trained, data_root, run_folder):
    command = [Path(sys.executable).parent / "cbam100", "predict", "--ckpt_path", trained / "model.safetensors",
               "--data.root", data_root, *DDP]  # fmt: skip
    first = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: children(first.pid), 120)
    (second,) = children(first.pid)
    first.kill()  # the second imports libraries, and will wait for the first to join
    first.wait(SECONDS)
    wait_for(lambda: ended(second), SECONDS)
