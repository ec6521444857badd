"""Times of work that is done in turns, so that a machine's moods meet all of it alike."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from datamodules.files.errors import UserError


def synchronize(device: torch.device) -> None:
    """Returns when a GPU has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(contenders: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each call, by contender, in the order of the calls.

    Args:
        contenders: What to call. A call returns when its work is done, on a GPU too.
        rounds: How often each is called in turn and timed.
        warm_up: How often each is called before.
    """
    for work in contenders.values():
        for _ in range(warm_up):
            work()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def run_script(path: Path, *words: str) -> dict[str, Any]:
    """What a script prints in JSON on its last line.

    Raises:
        UserError: It fails, or prints something else.
    """
    done = subprocess.run([sys.executable, path, *words], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise UserError(f"expected {path} {words[0]} to print a line of JSON, it ended with {reason}") from error


def row(name: str, images: float, seconds: list[float], base: list[float] | None = None) -> dict[str, Any]:
    """A row of the table: images per second in the median, slowest and fastest call, and the gain over ``base``.

    Args:
        name: Of the contender.
        images: Per call.
        seconds: Of each call.
        base: Those of the contender to compare with, with as many images per call.
    """
    median = statistics.median(seconds)
    return {
        "name": name,
        "images_per_s": images / median,
        "slowest": images / max(seconds),
        "fastest": images / min(seconds),
        "gain": statistics.median(base) / median if base else None,
    }
