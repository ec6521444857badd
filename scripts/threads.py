"""How the threads of a step wait for each other. Imports next to nothing: it must come before torch."""

import os
import sys

# Read once, by the OpenMP library that comes with torch. Waiting threads of its default spin, and take the cores from
# whatever else runs; docs/performance.md has the measurement.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's choice of one of them stands


def wait_without_spinning() -> None:
    """Sets this process's environment, which its children inherit; says so where that is too late for itself."""
    if any(name in os.environ for name in SETTINGS):
        return
    os.environ.update(WAITING)
    torch = sys.modules.get("torch")
    if torch and torch.get_num_threads() > 1:
        setting = " ".join(f"{name}={value}" for name, value in WAITING.items())
        print(
            "cbam100: torch was imported before this command, so that its threads wait by spinning: set "
            f"{setting} before Python starts where other work shares the machine",
            file=sys.stderr,
        )
