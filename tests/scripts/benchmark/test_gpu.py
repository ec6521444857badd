"""That nothing is lost of the minutes in which a GPU is at hand."""

import json
import os
import re
import time
import warnings
from dataclasses import replace

import pytest

from scripts.benchmark.gpu.bench import GOALS, GPU, REHEARSAL
from scripts.benchmark.gpu.command import ALWAYS, PARTS, WHEELS, Part, run_parts
from scripts.benchmark.gpu.host_syncs import CountHostSyncs
from scripts.main import main
from tests.integration.fork_driver import REPOSITORY, all_ended, drive

pytestmark = pytest.mark.processes
STEP = "training step, batch 16, attention stage"  # which has a goal


@pytest.fixture(scope="module", autouse=True)
def _server():
    drive({"args": ["--help"]})  # starts the one that all tests fork from


def well(bench):
    bench.fact("GPU", "a name")
    bench.figure(STEP, "ms", [3.0, 1.0, 2.0, 10.0])
    bench.check("promise", True)


def fails(bench):
    bench.figure("before", "ms", [1.0])
    raise ValueError("a sentence of the fault")


def breaks(bench):
    bench.check("broken promise", False, "7 | 8")


def dies(bench):
    os._exit(9)


def hangs(bench):
    bench.figure("before", "ms", [1.0])
    bench.command("--help")
    bench._outcome(sleep, ["sleep"])


def sleep(words, folder):
    with open(folder / "log.txt", "a") as log:
        print("group", os.getpgid(0), file=log)
    time.sleep(1000)


def commands(bench):
    outcome = bench.command("fit")
    bench.check("a command's end and words", outcome.exit_code == 2 and "cbam100: error:" in outcome.output)


def test_what_happens_to_one_part_leaves_the_others(tmp_path, capsys):
    parts = [Part(fails, 60), Part(hangs, 5), Part(dies, 60), Part(breaks, 60), Part(commands, 60), Part(well, 60)]
    assert not run_parts(parts, tmp_path, REHEARSAL)
    report = json.loads((tmp_path / "gpu.json").read_text())
    statuses = {result["part"]: result["status"] for result in report["parts"]}
    assert statuses == {
        "fails": "failed with 1: ValueError: a sentence of the fault", "hangs": "was stopped after 10 s",
        "dies": "failed with 9: it said nothing", "breaks": "done", "commands": "done", "well": "done",
    }  # fmt: skip
    before = {"name": "before", "unit": "ms", "median": 1.0, "lowest": 1.0, "highest": 1.0, "values": 1}
    assert report["rows"] == [
        {"part": "fails", **before},
        {"part": "hangs", **before},
        {"part": "well", "name": STEP, "unit": "ms", "median": 2.5, "lowest": 1.0, "highest": 10.0, "values": 4,
         "goal": 4.0, "acceptable": 8.0},
    ]  # fmt: skip
    assert report["machine"] == {"GPU": "a name"}
    table = (tmp_path / "gpu.md").read_text()
    assert f"| well | {STEP} | 2.5 ms | 1 to 10 (4) | 4 (8) |" in table
    assert "| breaks | broken promise | **no** | 7 \\| 8 |" in table
    assert "| commands | a command's end and words | yes |" in table
    log = (tmp_path / "logs.txt").read_text()
    assert "a sentence of the fault" in log
    assert "$ cbam100 --help" in log
    (group,) = re.findall(r"^group (\d+)$", log, re.M)
    assert all_ended(int(group))  # the command that hangs too
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [part.name for part in parts]
    assert "0 of 1 checks passed" in lines[3]
    assert lines[3].endswith("FAILED: broken promise")


def test_the_whole_has_a_limit(tmp_path, capsys):
    assert not run_parts([Part(hangs, 60), Part(well, 60)], tmp_path, replace(REHEARSAL, time_limit=3))
    first, second, advice = capsys.readouterr().out.splitlines()
    assert first.startswith("hangs: was stopped after 3 s")
    assert second.startswith("well: had no time left")
    assert advice == "To run what had no time left: cbam100 benchmark gpu --output ANOTHER_DIR --rehearse --only well"


def test_the_limits_of_what_runs_fit_into_that_of_the_whole():
    limits = {
        by_default: sum(part.time_limit for part in PARTS if part.by_default == by_default or part.name in ALWAYS)
        for by_default in (True, False)
    }
    assert max(limits.values()) <= GPU.time_limit == 360


def test_a_warning_on_the_mode_is_no_sync(capsys):
    """torch says it once, when the mode is first set."""
    callback = CountHostSyncs()
    callback.on_train_batch_start(None, None, None, 2)
    mode = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations"
    for message in (mode, "called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp:1.)"):
        warnings.warn(message, stacklevel=1)
    callback.on_train_batch_start(None, None, None, 3)
    callback.on_train_epoch_end(None, None)
    assert re.match(r"host syncs of batch 2: 1 \S+test_gpu\.py:\d+\n", capsys.readouterr().out)


def test_all_is_well(tmp_path):
    assert run_parts([Part(well, 60)], tmp_path, REHEARSAL)


def test_goals_are_those_of_the_document():
    table = (REPOSITORY / "docs" / "performance.md").read_text()
    for title, (goal, acceptable) in GOALS.items():
        row = rf"^\| {re.escape(title)} \| {goal:,g} (\S+) \| {acceptable:,g} \1 \|"
        assert re.search(row, table, re.M), title


def test_the_help_lists_the_wheels_that_the_constraints_know(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["benchmark", "gpu", "--help"])
    shown = capsys.readouterr().out
    constraints = (REPOSITORY / "constraints.txt").read_text()
    for name in WHEELS:
        assert f" {name}" in shown
        assert f"\n{name}==" in constraints


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--only=step,dance"], "there is no part dance for --only: choose from machine, draw, step"),
        (["--output=here/file"], "here/file/gpu.md"),
    ],
)
def test_refuses_in_one_sentence(words, sentence, run_folder, refusal):
    (run_folder / "here" / "file").mkdir(parents=True)
    (run_folder / "here" / "file" / "gpu.md").write_text("somebody's")
    assert sentence in refusal("benchmark", "gpu", "--output=new", *words)


@pytest.mark.slow  # imports everything for a server of its own
def test_a_rehearsal_of_some_parts(run_folder, capsys):
    (outcome,) = drive({"args": ["benchmark", "gpu", "--output=gpu", "--rehearse", "--only=faults,step"]})
    assert outcome["code"] == 0, outcome
    assert [line.split(",")[0] for line in outcome["output"].splitlines()] == [
        "machine: done", "draw: done", "step: done", "faults: done",
    ]  # fmt: skip
    report = json.loads((run_folder / "gpu" / "gpu.json").read_text())
    assert all(check["passed"] for part in report["parts"] for check in part["checks"])
