"""Environment variables that processes start with. Imports next to nothing, as it has to run before torch loads."""

import os
import sys
from pathlib import Path
from typing import Any

# The OpenMP library that torch brings for Linux reads this once, when it is loaded. By default its waiting threads spin
# for long, and take the cores from whatever else runs: see docs/performance.md.
WAITING = {"GOMP_SPINCOUNT": "10000"}
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's choice of one of them stands


def limit_spinning() -> None:
    """Limits how long waiting OpenMP threads of this process and its children spin; warns if torch came first."""
    if any(name in os.environ for name in SETTINGS):
        return
    os.environ.update(WAITING)
    torch = sys.modules.get("torch")
    if torch and torch.get_num_threads() > 1:
        setting = " ".join(f"{name}={value}" for name, value in WAITING.items())
        print(
            "cbam100: torch was imported before this command, so its waiting threads keep the CPU busy: set "
            f"{setting} before Python starts if other work shares the machine",
            file=sys.stderr,
        )


def module_process(module: str, *words: str) -> dict[str, Any]:
    """Returns ``args`` and ``env`` with which ``subprocess`` runs a module of the code that is running now.

    ``python -m`` alone would look for it in the working directory first.
    """
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
    return {"args": [sys.executable, "-m", module, *words], "env": env}
