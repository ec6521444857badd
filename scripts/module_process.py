"""This project's modules in processes of their own."""

import os
import sys
from pathlib import Path
from typing import Any


def module_process(module: str, *words: str) -> dict[str, Any]:
    """``args`` and ``env`` with which ``subprocess`` runs a module of the code that is running now.

    Whatever the working directory holds: ``python -m`` alone would look there first.
    """
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    return {"args": [sys.executable, "-m", module, *words], "env": env}
