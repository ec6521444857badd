import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.environment import SETTINGS, WAITING, limit_spinning

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in SETTINGS:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def chosen():
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def test_it_is_set_before_torch_is_imported():
    code = (
        "import os, sys, types, scripts.main\n"
        "program = sys.modules['scripts.process'] = types.ModuleType('program')\n"
        f"program.run = lambda args: print({{name: os.environ.get(name) for name in {list(WAITING)}}}, *sys.modules)\n"
        "scripts.main.main(['fit'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith(str(WAITING))
    assert not {"torch", "numpy"} & set(done.stdout.split())
    assert done.stderr == ""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_users_choice_stands(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    limit_spinning()
    assert chosen() == {name: "1"}


@pytest.mark.parametrize(("threads", "lines"), [(1, 0), (2, 1)])
def test_where_torch_came_first_it_says_so_once_if_threads_wait(threads, lines, monkeypatch, capsys):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    limit_spinning()
    limit_spinning()
    assert chosen() == WAITING  # for child processes
    assert capsys.readouterr().err.count("\n") == lines
