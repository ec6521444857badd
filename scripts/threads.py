"""How the threads of a step wait for each other. Imports next to nothing: it must come before torch."""

import os
import sys

# The OpenMP library that torch brings for Linux reads this once, when it is loaded. By default its waiting threads spin
# for long, and take the cores from whatever else runs: see docs/performance.md.
WAITING = {"GOMP_SPINCOUNT": "10000"}
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's choice of one of them stands


def limit_spinning() -> None:
    """Sets this process's environment, which its children inherit; says so where that is too late for itself."""
    if any(name in os.environ for name in SETTINGS):
        return
    os.environ.update(WAITING)
    torch = sys.modules.get("torch")
    if torch and torch.get_num_threads() > 1:
        setting = " ".join(f"{name}={value}" for name, value in WAITING.items())
        print(
            "cbam100: torch was imported before this command, so that its waiting threads spin for long: set "
            f"{setting} before Python starts where other work shares the machine",
            file=sys.stderr,
        )
