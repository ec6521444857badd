"""What is left after a kill, a signal or a dead loader process, and that a resumed run ends as if nothing had been."""

import json
import random
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL
from tests.integration.fork_driver import PREDICTION, SAVING, TRAINING, VALIDATION, drive

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the fork driver needs Linux's /proc"),
]
SIGNALS = (signal.SIGTERM, signal.SIGINT)
FIT = [*SMALL, "--data.batch_size=8", "--trainer.max_epochs=2", "--model.restart_epochs=2", "--best.every_n_steps=1"]
DDP = ["--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2"]
LAST = "runs/default/version_0/checkpoints/last.ckpt"


def fit(root, *options):
    return ["fit", *FIT, f"--data.root={root}", *options]


def weights(path=LAST):
    return torch.load(path, weights_only=True)["state_dict"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def uninterrupted(data_root, new_folder):
    folder = new_folder("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (outcome,) = drive({"args": fit(data_root)})
        assert outcome["code"] == 0, outcome["error"]
        return weights(), json.loads(Path("runs/default/version_0/manifest.json").read_text())["best"]


def torn_files(folder):
    """Files with a final name that cannot be read."""
    readers = {
        ".ckpt": lambda path: torch.load(path, weights_only=True),
        ".safetensors": load_file,
        ".json": lambda path: json.loads(path.read_text()),
    }
    torn = []
    for path in folder.rglob("*.*"):
        try:
            if path.suffix in readers:
                readers[path.suffix](path)
        except Exception as error:
            torn.append(f"{path}: {error}")
    return torn


@pytest.mark.slow
def test_killed_at_random_in_training_validation_and_saving(uninterrupted, data_root, run_folder):
    expected, best = uninterrupted
    moments = random.Random(0)
    killed = ended = 0
    while killed < 20:
        place = (TRAINING, VALIDATION, moments.choice(SAVING))[killed % 3]
        # A run that comes to its end before it is killed is followed by a new one under the next number.
        args = fit(data_root, "--ckpt_path=last", f"--run_name=number_{ended}")
        (outcome,) = drive({"args": args, "at": [place, moments.randint(1, 6)], "signal": signal.SIGKILL})
        assert outcome["code"] in (0, -signal.SIGKILL)
        assert torn_files(Path("runs")) == []
        killed += outcome["code"] < 0
        ended += outcome["code"] == 0
    (outcome,) = drive({"args": args})
    assert outcome["code"] == 0
    manifests = list(Path("runs").glob("*/*/manifest.json"))
    finished = [path for path in manifests if json.loads(path.read_text())["events"][-1]["event"] == "finished"]
    assert len(finished) == ended + 1
    for manifest in finished:
        assert equal(weights(manifest.parent / "checkpoints/last.ckpt"), expected)
        assert json.loads(manifest.read_text())["best"] == best
        assert not list(manifest.parents[1].rglob("*.part"))  # each start cleans up


def test_a_signal_in_a_fit_saves_and_the_resumed_run_ends_alike(uninterrupted, data_root, run_folder):
    plans = []
    for number in SIGNALS:
        plans += [
            {"args": fit(data_root, "--best.every_n_steps=3", f"--run_name={number}"), "at": [TRAINING, 5],
             "signal": number},
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
        assert events[1]["step"] == events[2]["step"] == 5  # saved after the step that was running


def test_a_signal_ends_an_evaluation_without_a_result(trained, data_root, run_folder):
    options = [f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}", "--data.batch_size=1",
               "--data.num_workers=0", "--trainer.accelerator=cpu"]  # fmt: skip
    plans = [
        {"args": [command, *options], "at": [step, 2], "signal": number}
        for command, step in (("validate", VALIDATION), ("predict", PREDICTION))
        for number in SIGNALS
    ]
    for plan, outcome in zip(plans, drive(*plans), strict=True):
        assert outcome["code"] == 128 + plan["signal"], outcome["error"]
        assert "Traceback" not in outcome["error"]
        assert "val/accuracy" not in outcome["output"]
    assert list(run_folder.iterdir()) == []


def test_a_loader_process_that_dies_or_hangs_ends_the_run_with_a_sentence(data_root, run_folder):
    root = Path(shutil.copytree(data_root, run_folder / "copy"))
    args = fit(root, "--data.num_workers=2", "--trainer.max_epochs=500")
    killed, hanging = drive(
        {"args": [*args, "--run_name=killed"], "at": [TRAINING, 2], "signal": signal.SIGKILL, "to": "worker"},
        {"args": [*args, "--run_name=hanging", "--data.worker_timeout=3"], "at": [TRAINING, 2],
         "hang": str(next((root / "train" / "3").iterdir()))},
    )  # fmt: skip
    for outcome, sentence in ((killed, r"is killed by signal|exited unexpectedly"), (hanging, "timed out after 3 sec")):
        assert outcome["code"] == 2, outcome["error"]
        (error,) = (line for line in outcome["error"].splitlines() if line.startswith("cbam100: error: "))
        assert "a loader process died or hung (DataLoader" in error
        assert re.search(sentence, error)


def test_two_processes_stop_on_a_signal_to_one_and_resume(data_root, run_folder):
    small = [option for option in FIT if "accelerator" not in option and "trainer.devices" not in option]
    args = ["fit", *small, f"--data.root={data_root}", "--data.batch_size=4", *DDP]
    whole, stopped, resumed = drive(
        {"args": [*args, "--run_name=whole"]},
        {"args": args, "at": [TRAINING, 3], "signal": signal.SIGTERM},  # to the first only
        {"args": [*args, "--ckpt_path=last"]},
    )
    assert [outcome["code"] for outcome in (whole, stopped, resumed)] == [0, 143, 0]
    assert "Traceback" not in stopped["error"]
    events = json.loads(Path("runs/default/version_0/manifest.json").read_text())["events"]
    assert [(event["event"], event["step"]) for event in events] == [
        ("started", 0), ("interrupted", 3), ("resumed", 3), ("finished", 12),
    ]  # fmt: skip
    assert equal(weights(), weights(LAST.replace("default", "whole")))
