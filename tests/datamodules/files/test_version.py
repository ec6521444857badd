import importlib.metadata
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from callbacks.run.manifest import versions
from datamodules.files import version as module
from datamodules.files.version import version
from scripts.main import main

SETUP = Path(__file__).parents[3] / "setup.cfg"


def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)


def stated():
    setup = ConfigParser()
    setup.read(SETUP)
    return setup["metadata"]["version"]


def test_a_checkout_that_is_not_installed_says_what_setup_cfg_says(monkeypatch):
    monkeypatch.setattr(module, "installed", missing)
    assert version() == stated()


def test_the_manifest_has_it():
    assert versions()["cbam100"] == version()


def test_the_command_prints_it(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"cbam100 {version()}\n"


def test_the_command_waits_for_no_library():
    code = "import sys; from scripts.main import main\ntry: main(['--version'])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SETUP.parent)
    assert done.stdout.splitlines()[-1] == "False"
