"""What is left after a kill, a signal or a dead loader process, and that a resumed run ends as if nothing had been."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in Linux's /proc")
REPOSITORY = Path(__file__).parents[2]
KILLS = 20
SIGNALS = (signal.SIGTERM, signal.SIGINT)
FIT = [*SMALL, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2", "--best.every_n_steps=1"]
DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]
LAST = "runs/default/version_0/checkpoints/last.ckpt"


def drive(*plans):
    """The outcomes of runs in the working directory, with ``TMPDIR`` on another file system where there is one."""
    elsewhere = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}
    command = [sys.executable, REPOSITORY / "tests" / "integration" / "fork_driver.py", json.dumps(plans)]
    environment = {**os.environ, **elsewhere, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=600)
    return json.loads(done.stdout)


def fit(root, *options):
    return ["fit", *FIT, f"--data.root={root}", *options]


def weights(path=LAST):
    return torch.load(path, weights_only=True)["state_dict"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(data_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (outcome,) = drive({"args": fit(data_root)})
        assert outcome["code"] == 0, outcome["error"]
        return weights(), json.loads(Path("runs/default/version_0/manifest.json").read_text())["best"]


def test_killed_twenty_times_at_random(uninterrupted, data_root, run_folder):
    expected, best = uninterrupted
    moments = random.Random(0)
    # A run that comes to its end before it is killed is followed by a new one under the next number.
    killed = 0
    for _ in range(5):
        if killed >= KILLS:
            break
        args = fit(data_root, "--ckpt_path=last", f"--run_name=after_{killed}_and_{{finished}}")
        kills = [{"args": args, "signal": signal.SIGKILL, "after": moments.uniform(0.3, 2.5)} for _ in range(12)]
        outcomes = drive(*kills, {"args": args})
        assert {outcome["code"] for outcome in outcomes} <= {0, -signal.SIGKILL}
        assert [outcome["torn"] for outcome in outcomes if outcome["torn"]] == []
        killed += sum(outcome["code"] < 0 for outcome in outcomes)
    assert killed >= KILLS
    ended = list(Path("runs").glob("*/*/manifest.json"))
    ended = [path for path in ended if json.loads(path.read_text())["events"][-1]["event"] == "finished"]
    assert ended
    for manifest in ended:
        assert equal(weights(manifest.parent / "checkpoints/last.ckpt"), expected)
        assert json.loads(manifest.read_text())["best"] == best
        assert not list(manifest.parents[1].rglob("*.part"))  # each start cleans up


def test_a_signal_in_a_fit_saves_and_the_resumed_run_ends_alike(uninterrupted, data_root, run_folder):
    plans = []
    for number in SIGNALS:
        plans += [
            {"args": fit(data_root, "--best.every_n_steps=3", f"--run_name={number}"), "signal": number,
             "once": f"runs/{number}/version_0/checkpoints/last.ckpt"},
            {"args": fit(data_root, "--ckpt_path=last", f"--run_name={number}")},
        ]  # fmt: skip
    outcomes = drive(*plans)
    for number, stopped, resumed in zip(SIGNALS, outcomes[::2], outcomes[1::2], strict=True):
        assert stopped["code"] == 128 + number
        assert stopped["error"].count(f"cbam100: {number.name}: ending after this step") == 1
        assert "Traceback" not in stopped["error"]
        assert resumed["code"] == 0
        folder = Path("runs") / str(number) / "version_0"
        assert equal(weights(folder / "checkpoints" / "last.ckpt"), uninterrupted[0])
        events = json.loads((folder / "manifest.json").read_text())["events"]
        assert [event["event"] for event in events] == ["started", "interrupted", "resumed", "finished"]
        assert events[1]["by"] == number.name
        assert events[1]["step"] == events[2]["step"] > 3  # saved after the step that was running


def test_a_signal_ends_an_evaluation_without_a_result(trained, data_root, run_folder):
    many = run_folder / "many"
    for place in (many / "val" / label for label in map(str, range(12))):
        place.mkdir(parents=True)
        image = next((data_root / "val" / place.name).iterdir())
        for number in range(2000):
            os.link(image, place / f"{place.name}_{number}.jpg")  # minutes of work
    options = [f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={many}", "--data.batch_size=1",
               "--data.num_workers=0", "--trainer.accelerator=cpu"]  # fmt: skip
    commands = (["validate", *options], ["predict", *options, f"--data.predict_dir={many}"])
    plans = [{"args": args, "signal": number, "after": 5} for args in commands for number in SIGNALS]
    for plan, outcome in zip(plans, drive(*plans), strict=True):
        assert outcome["code"] == 128 + plan["signal"], outcome["error"]
        assert "Traceback" not in outcome["error"]
        assert "val/accuracy" not in outcome["output"]
    assert [path.name for path in run_folder.iterdir() if "prediction" in path.name] == []


def test_a_loader_process_that_dies_or_hangs_ends_the_run_with_a_sentence(data_root, run_folder):
    root = Path(shutil.copytree(data_root, run_folder / "copy"))
    args = fit(root, "--data.num_workers=2", "--data.worker_timeout=3", "--trainer.max_epochs=500")
    killed, hanging = drive(
        {"args": [*args, "--run_name=killed"], "signal": signal.SIGKILL, "to": "worker",
         "once": "runs/killed/version_0/checkpoints/last.ckpt"},
        {"args": [*args, "--run_name=hanging"], "hang": str(next((root / "train" / "3").iterdir())),
         "once": "runs/hanging/version_0/checkpoints/last.ckpt"},
    )  # fmt: skip
    for outcome, sentence in ((killed, r"is killed by signal|exited unexpectedly"), (hanging, "timed out after 3 sec")):
        assert outcome["code"] == 2, outcome["error"]
        (error,) = (line for line in outcome["error"].splitlines() if line.startswith("cbam100: error: "))
        assert "expected loader processes that live and deliver, DataLoader" in error
        assert re.search(sentence, error)


def test_two_processes_stop_on_a_signal_to_one_and_resume(data_root, tmp_path):
    small = [option for option in FIT if "accelerator" not in option and "trainer.devices" not in option]
    command = [Path(sys.executable).parent / "cbam100", "fit", *small, f"--data.root={data_root}",
               "--data.batch_size=4", *DDP]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    subprocess.run(command, cwd=whole, check=True, capture_output=True, timeout=120)
    with subprocess.Popen(command, cwd=parts, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as stopped:
        while not (parts / LAST).exists():
            assert stopped.poll() is None
            time.sleep(0.05)
        stopped.send_signal(signal.SIGTERM)  # to the first only
        assert stopped.wait(60) == 143
        assert "Traceback" not in stopped.stderr.read()
    events = json.loads((parts / "runs/default/version_0/manifest.json").read_text())["events"]
    assert events[-1]["event"] == "interrupted"
    assert events[-1]["step"] < 12
    subprocess.run([*command, "--ckpt_path=last"], cwd=parts, check=True, capture_output=True, timeout=120)
    assert equal(weights(parts / LAST), weights(whole / LAST))
