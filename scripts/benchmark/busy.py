"""``cbam100 benchmark busy``: times a training step beside busy processes, by how its threads wait for each other."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from lightning_modules import ResNetCBAM
from scripts.benchmark.step import CLASSES, train_step
from scripts.benchmark.stepper import stepper
from scripts.environment import SETTINGS, WAITING, module_process

# Environments that decide how long a waiting thread of GNU OpenMP, which torch brings, spins before it sleeps.
WAYS: dict[str, dict[str, str]] = {
    "the library's default": {},
    "this project's": WAITING,
    "GOMP_SPINCOUNT=5000": {"GOMP_SPINCOUNT": "5000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BUSY = (0, 1, 2, 4)  # numbers of busy processes beside the measured one


def benchmark_busy(
    image_size: int, batch_size: int, precision: str, *, rounds: int, steps: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the rows of the table and the other figures.

    Each way to wait has a process, as OpenMP reads its settings once; under each load, the processes take turns.
    """
    words = [str(image_size), str(batch_size), precision]
    seconds: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        steppers = {name: stack.enter_context(stepper(name, _process(way, words))) for name, way in WAYS.items()}
        for do in steppers.values():
            do(2)
        for _ in range(rounds):
            for busy in BUSY:
                with _busy_processes(busy):
                    for name, do in steppers.items():
                        seconds.setdefault((name, busy), []).extend(do(1) for _ in range(steps))
    base = {busy: statistics.median(seconds["the library's default", busy]) for busy in BUSY}
    rows: list[dict[str, Any]] = []
    for name in WAYS:
        medians = {busy: statistics.median(seconds[name, busy]) for busy in BUSY}
        rows.append({"name": name} | {f"s, {busy} busy": median for busy, median in medians.items()})
        rows[-1] |= {f"gain, {busy} busy": base[busy] / median for busy, median in medians.items()}
    return rows, {"size": image_size, "batch": batch_size, "precision": precision}


def _process(way: Mapping[str, str], words: list[str]) -> dict[str, Any]:
    started = module_process("scripts.benchmark.busy", *words)
    started["env"] = {name: value for name, value in started["env"].items() if name not in SETTINGS} | dict(way)
    return started


@contextmanager
def _busy_processes(count: int) -> Iterator[None]:
    spin = [sys.executable, "-c", "while True: pass"]
    with ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(spin)) for _ in range(count)]
        time.sleep(0.5)
        try:
            yield
        finally:
            for process in processes:
                process.kill()


def _serve(size: str, batch: str, precision: str) -> None:
    """Does as many training steps as each line of the standard input says, and prints the mean of their seconds."""
    images, targets = torch.randn(int(batch), 3, int(size), int(size)), torch.randint(0, CLASSES, (int(batch),))
    step = train_step(ResNetCBAM(CLASSES), images, targets, precision, "none")
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print((time.perf_counter() - start) / int(line), flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
