"""Every command without what Windows' Python lacks, and with the start method of Windows and macOS.

This finds imports, attributes and what cannot be pickled. It does not find how Windows itself behaves: its locks, its
refusal to replace open files (see ``test_atomic_file``), its paths, signals and consoles.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.integration.fork_driver import LAST_RESORT, REPOSITORY
from tests.test_architecture import own_modules

pytestmark = pytest.mark.processes
ONE_INTERPRETER = """
import json, sys
from scripts.main import main
for words in json.loads(sys.argv[1]):
    print("$", *words[:1], flush=True)
    try:
        main(words)
    except SystemExit as error:
        if error.code:
            raise
from datamodules.files import locks
from datamodules.workers.process import SIGNALS
from scripts.run_logger import NOT_IN_A_NAME
print("there:", locks.fcntl, [number.name for number in SIGNALS], bool(NOT_IN_A_NAME))
"""


def interpret(*words):
    """Runs Python without what Windows lacks, on a console of Western Europe, where files are not read in UTF-8."""
    path = [str(Path(__file__).parent / "on_windows"), str(REPOSITORY)]
    encodings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "cp1252"}
    environment = {**os.environ, **encodings, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([sys.executable, "-c", *words], env=environment, capture_output=True, timeout=LAST_RESORT)
    output, error = (text.decode("cp1252", "replace") for text in (done.stdout, done.stderr))
    assert done.returncode == 0, output + error
    return output


def test_every_module_is_imported_without_posix(run_folder):
    modules = sorted(own_modules().keys() - {"scripts.demo.__main__"})
    interpret("import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)", *modules)


@pytest.mark.slow
def test_every_command_does_without_posix(data_root, run_folder):
    root = f"--data.root={data_root}"
    short = [word for word in SMALL if "num_workers" not in word] + ["--model.restart_epochs=1"]
    fit = ["fit", *short, root, "--data.num_workers=1", "--run_name=x"]
    run = Path("runs/x/version_0")
    on_cpu = ["--trainer.accelerator=cpu", f"--ckpt_path={run}/model.safetensors", root]
    commands = [
        ["audit", root, "--data.num_workers=1"],
        [*fit, "--trainer.max_epochs=1"],
        [*fit, "--trainer.max_epochs=2", "--ckpt_path=last"],
        ["validate", *on_cpu, "--data.num_workers=0"],
        ["predict", *on_cpu, "--data.num_workers=0"],
        ["report", f"--run={run}"],
        ["ablate", "--vary=model.loss=focal,cross_entropy", "--seeds=1", *SMALL, root, "--trainer.max_epochs=1",
         "--model.restart_epochs=1"],
    ]  # fmt: skip
    output = interpret(ONE_INTERPRETER, json.dumps(commands))
    assert "there: None ['SIGINT', 'SIGTERM'] True" in output
    assert output.count("starting processes that read images, which takes some seconds") == 1
    events = [event["event"] for event in json.loads((run / "manifest.json").read_text())["events"]]
    assert events == ["started", "finished", "resumed", "finished"]
    assert (run / "report.html").is_file()
    assert len(Path("prediction.csv").read_text().splitlines()) == 1 + len(list((data_root / "test").iterdir()))
    table = (Path("runs/ablation_default/ablation.md")).read_text(encoding="utf-8")
    assert "cross_entropy" in table
    assert not list(run_folder.rglob("*.part"))
