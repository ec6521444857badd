"""That nothing is lost of the minutes in which a GPU is at hand."""

import json
import os
import re
import time
from dataclasses import replace

import pytest

from scripts.benchmark.gpu.bench import REHEARSAL, Bench
from scripts.benchmark.gpu.command import WHEELS, Part, run_parts
from scripts.main import main
from tests.integration.fork_driver import REPOSITORY, all_ended, drive

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module", autouse=True)
def _server():
    drive({"args": ["--help"]})  # starts the one that all tests fork from


def well(bench):
    bench.fact("GPU", "a name")
    bench.figure("speed", "ms", [3.0, 1.0, 2.0, 10.0], goal=(4, 8))
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
    bench.check("a command's end and words", outcome.code == 2 and "cbam100: error:" in outcome.output)


def test_what_happens_to_one_part_leaves_the_others(tmp_path, capsys):
    parts = [Part(fails, 60), Part(hangs, 10), Part(dies, 60), Part(breaks, 60), Part(commands, 60), Part(well, 60)]
    assert not run_parts(parts, tmp_path, replace(REHEARSAL, device="cuda"))
    report = json.loads((tmp_path / "gpu.json").read_text())
    states = {result["part"]: result["state"] for result in report["parts"]}
    assert states == {
        "fails": "failed with 1: ValueError: a sentence of the fault", "hangs": "was stopped after 10 s",
        "dies": "failed with 9: it said nothing", "breaks": "done", "commands": "done", "well": "done",
    }  # fmt: skip
    before = {"name": "before", "unit": "ms", "median": 1.0, "lowest": 1.0, "highest": 1.0, "values": 1}
    assert report["rows"] == [
        {"part": "fails", **before},
        {"part": "hangs", **before},
        {"part": "well", "name": "speed", "unit": "ms", "median": 2.5, "lowest": 1.0, "highest": 10.0, "values": 4,
         "goal": 4, "least": 8},
    ]  # fmt: skip
    assert report["machine"] == {"GPU": "a name"}
    table = (tmp_path / "gpu.md").read_text()
    assert "| well | speed | 2.5 ms | 1 to 10, 4 | 4 (8) |" in table
    assert "| breaks | broken promise | **no** | 7 \\| 8 |" in table
    assert "| commands | a command's end and words | yes |" in table
    log = (tmp_path / "logs.txt").read_text()
    assert "a sentence of the fault" in log
    assert "$ cbam100 --help" in log
    (group,) = re.findall(r"^group (\d+)$", log, re.M)
    assert all_ended(int(group))  # the command that hangs too
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [part.name for part in parts]
    assert "0 of 1 checks held" in lines[3]
    assert lines[3].endswith("NOT: broken promise")


def test_the_whole_has_a_limit(tmp_path, capsys):
    assert not run_parts([Part(hangs, 60), Part(well, 60)], tmp_path, replace(REHEARSAL, seconds=3))
    first, second, advice = capsys.readouterr().out.splitlines()
    assert first.startswith("hangs: was stopped after 3 s")
    assert second.startswith("well: had no time left")
    assert advice == "what had no time: cbam100 benchmark gpu --output ANOTHER_DIR --only well"


def test_all_is_well(tmp_path):
    assert run_parts([Part(well, 60)], tmp_path, REHEARSAL)


def test_goals_are_a_gpus(tmp_path):
    Bench(tmp_path, tmp_path, REHEARSAL).figure("speed", "ms", [1.0], goal=(4, 8))
    assert "goal" not in json.loads((tmp_path / "figures.jsonl").read_text())


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
        (["--only=step,dance"], "expected --only of machine, draw, fit"),
        (["--output=here/file"], "something else is there"),
    ],
)
def test_refuses_in_one_sentence(words, sentence, run_folder, capsys):
    (run_folder / "here" / "file").mkdir(parents=True)
    (run_folder / "here" / "file" / "gpu.md").write_text("somebody's")
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", "gpu", "--output=new", *words])
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("cbam100: error: ")
    assert sentence in error


@pytest.mark.slow  # imports everything for a server of its own
def test_a_rehearsal_of_some_parts(run_folder, capsys):
    (outcome,) = drive({"args": ["benchmark", "gpu", "--output=gpu", "--rehearse", "--only=faults,step"]})
    assert outcome["code"] == 0, outcome
    assert [line.split(",")[0] for line in outcome["output"].splitlines()] == [
        "machine: done", "draw: done", "faults: done", "step: done",
    ]  # fmt: skip
    report = json.loads((run_folder / "gpu" / "gpu.json").read_text())
    assert all(check["held"] for part in report["parts"] for check in part["checks"])
