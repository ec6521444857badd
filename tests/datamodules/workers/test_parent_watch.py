import os
import subprocess
import sys
import types

import pytest

from datamodules.workers import parent_watch


@pytest.mark.processes
@pytest.mark.parametrize("system", ["posix", "nt"])
def test_a_parents_life_is_watched(system, monkeypatch):
    """Where it is asked of the parent's number: Windows never gives a process another parent."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        there = types.SimpleNamespace(name=system, getppid=lambda: process.pid if process.poll() is None else 1)
        monkeypatch.setattr(parent_watch, "os", there)
        is_alive = parent_watch._life_of(process.pid)
        assert is_alive()
        process.communicate()
        assert not is_alive()
        assert not parent_watch._life_of(process.pid)()  # it died before anybody looked
    assert os.name == "posix"
