"""Runs commands in forks of a process that has imported the libraries once, and sends them signals.

Run as a script with a plan: a list of runs, each with ``args``, and where a signal is to be sent ``signal`` and
``after`` seconds or ``once`` a file exists. A ``to`` of "worker" sends it to a loader process; a ``hang`` names a file
that is to hang its reader instead. Prints their outcomes.
In ``args``, ``{finished}`` is the number of runs before that ended with 0.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from scripts import program  # noqa: F401, imported before the forks, as main would after each
from scripts.main import main


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int) -> bool:
    """Whether the process has ended, though nobody may have asked for its exit code yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def run(plan: dict) -> dict:
    """Follows one run, for a minute at most; returns its ``code``, negative for a signal, ``error`` and ``output``."""
    log, errors = Path("stdout.log"), Path("stderr.log")
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        torch.set_num_threads(1)
        faulthandler.dump_traceback_later(50, file=sys.__stderr__)  # where it hangs, if it does
        code = 0
        try:
            main(plan["args"])
        except SystemExit as exit:
            code = exit.code
        sys.stdout.flush()
        os._exit(code)
    end = time.monotonic() + 60
    if "signal" in plan or "hang" in plan:
        moment = time.monotonic() + plan.get("after", 0)
        while not ended(pid) and (time.monotonic() < moment or not Path(plan.get("once", "/")).exists()):
            time.sleep(0.01)
        if "hang" in plan:  # opening the file will wait for a writer, for ever
            os.mkfifo("pipe")
            os.replace("pipe", plan["hang"])
        elif not ended(pid):
            os.kill(children(pid)[-1] if plan.get("to") == "worker" else pid, plan["signal"])
    while not ended(pid):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "error": errors.read_text(), "output": log.read_text(), "torn": torn_files(Path("runs"))}


def torn_files(folder: Path) -> list[str]:
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


if __name__ == "__main__":
    outcomes: list[dict] = []
    for plan in json.loads(sys.argv[1]):
        finished = sum(outcome["code"] == 0 for outcome in outcomes)
        plan["args"] = [arg.replace("{finished}", str(finished)) for arg in plan["args"]]
        outcomes.append(run(plan))
    print(json.dumps(outcomes))
