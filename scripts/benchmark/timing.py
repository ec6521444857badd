"""Timing of contenders that take turns, so that a change in the machine's speed affects all of them alike."""

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
    """Waits until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def alternate(contenders: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Calls contenders in turn, ``rounds`` times after the warm-up calls, and returns the seconds of each timed call.

    A contender returns when its work is done, also on a GPU.
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
    """Runs a Python script and returns the JSON object on the last line that it prints.

    Raises:
        UserError: The script fails, or its last line is not JSON.
    """
    done = subprocess.run([sys.executable, path, *words], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise UserError(f"{path} {words[0]} printed no line of JSON: it ended with {reason}") from error


def rows(images: float, seconds: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    """Returns a row for each contender: images per second of its median, slowest and fastest call, and its gain.

    Example:
        >>> rows(8, {"train": [2.0], "train, plain": [4.0]})[0]
        {'name': 'train', 'images_per_s': 4.0, 'slowest': 4.0, 'fastest': 4.0, 'gain': 2.0}

    Args:
        images: Number of images per call.
        seconds: Seconds of each call of ``<kind>`` or ``<kind>, <variant>``. The gain is over ``<kind>, plain``.
    """
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return [
        {
            "name": name,
            "images_per_s": images / medians[name],
            "slowest": images / max(times),
            "fastest": images / min(times),
            "gain": medians[f"{name.split(',')[0]}, plain"] / medians[name],
        }
        for name, times in seconds.items()
    ]
