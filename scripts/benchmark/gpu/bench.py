"""What the parts of the benchmark have at hand: sizes, commands in processes of their own, and what they found."""

import json
import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from datamodules.workers.parent_watch import end_with_parent
from scripts.cli import ClassifierCLI
from scripts.main import main

# A fork of a process that has imported everything, and has touched neither a GPU nor threads, starts at once.
CONTEXT = multiprocessing.get_context("forkserver")
THREADS = torch.get_num_threads()
# multiprocessing runs in each fork what was started, which is imported by then.
warnings.filterwarnings("ignore", "'scripts.main' found in sys.modules", RuntimeWarning)
PRELOADED = [
    "scripts.benchmark.gpu.correctness",
    "scripts.benchmark.gpu.speed",
    "scripts.process",
    "torch.utils.tensorboard",
]


@dataclass(frozen=True)
class Sizes:
    """How much work there is.

    Attributes:
        device: Of the work, as torch calls it.
        classes: Of the drawn images.
        images: Drawn for each class to train on; a quarter as many to validate, an eighth to predict.
        photo_side: Of a drawn image, in pixels.
        image_size: Of what the network sees, in pixels.
        backbone: Of the network.
        batches: A small, a middling and a large one.
        files: For each class, on the way from files to weights.
        short: Batches of an epoch where not all files are taken.
        workers: Numbers of loader processes to compare.
        steps: How often each step is timed at the small batch; at the large one a quarter of that.
        precisions: To fit in beside the default.
        seconds: The whole may take.
        words: Options of a command that computes on the device.
        recipe: Options of a fit at these sizes.
    """

    device: str
    classes: int
    images: int
    photo_side: int
    image_size: int
    backbone: str
    batches: tuple[int, int, int]
    files: int
    short: int
    workers: tuple[int, ...]
    steps: int
    precisions: tuple[str, ...]
    seconds: float
    words: tuple[str, ...]
    recipe: tuple[str, ...]


GPU = Sizes(
    device="cuda", classes=100, images=16, photo_side=320, image_size=224, backbone="resnet50", batches=(16, 64, 256),
    files=207, short=24, workers=(4, 8, 16), steps=40, precisions=("16-mixed", "bf16-mixed", "32-true"), seconds=360,
    words=("--trainer.accelerator=gpu", "--trainer.devices=1"), recipe=("--model.weights=none",),
)  # fmt: skip
REHEARSAL = Sizes(
    device="cpu", classes=12, images=8, photo_side=48, image_size=32, backbone="resnet18", batches=(2, 4, 8),
    files=8, short=4, workers=(1, 2), steps=4, precisions=("bf16-mixed", "32-true"), seconds=480,
    words=("--trainer.accelerator=cpu", "--trainer.devices=1", "--data.num_workers=1"),
    recipe=("--model.weights=none", "--model.backbone=resnet18", "--data.image_size=32"),
)  # fmt: skip


class Outcome(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and what it printed."""

    code: int
    output: str


class Bench:
    """A part's folder and records.

    Args:
        folder: The part's own; commands run there.
        shared: What all parts read.
        sizes: Of the work.
    """

    def __init__(self, folder: Path, shared: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.shared = shared
        self.sizes = sizes

    @property
    def data(self) -> Path:
        """The drawn images."""
        return self.shared / "data"

    def check(self, name: str, held: bool, detail: str = "") -> None:
        """Records whether a promise was kept."""
        self._record("checks", check=name, held=bool(held), detail=detail)

    def figure(self, name: str, unit: str, values: Sequence[float], goal: tuple[float, float] | None = None) -> float:
        """Records the median and the spread of what was measured, and returns the median.

        Args:
            name: What it is.
            unit: Of the values.
            values: All that were measured.
            goal: What is aimed at, and the least that will do; they hold at the sizes of a GPU.
        """
        median = statistics.median(values)
        spread = {"median": median, "lowest": min(values), "highest": max(values), "values": len(values)}
        goals = {"goal": goal[0], "least": goal[1]} if goal and self.sizes.device == "cuda" else {}
        self._record("figures", name=name, unit=unit, **spread, **goals)
        return median

    def fact(self, name: str, value: str) -> None:
        """Records what the machine is."""
        self._record("facts", fact=name, value=value)

    def _record(self, kind: str, **record: Any) -> None:
        with open(self.folder / f"{kind}.jsonl", "a") as file:  # at once, as the part may be killed
            file.write(json.dumps(record) + "\n")

    def command(self, *words: str) -> Outcome:
        """Runs ``cbam100`` in a process of its own, which ends with this one."""
        return self._outcome(_follow, list(words))

    def metrics(self, *words: str) -> dict[str, float]:
        """What a ``validate`` comes to, in full."""
        path = self.folder / "metrics.json"
        outcome = self._outcome(_measure, list(words), path)
        if outcome.code:
            raise RuntimeError(f"{words} ended with {outcome.code}:\n{outcome.output}")
        return json.loads(path.read_text())

    def succeed(self, *words: str) -> str:
        """What a command prints.

        Raises:
            RuntimeError: It fails.
        """
        outcome = self.command(*words)
        if outcome.code:
            raise RuntimeError(f"{words} ended with {outcome.code}:\n{outcome.output}")
        return outcome.output

    def _outcome(self, target: Any, *arguments: Any) -> Outcome:
        log = self.folder / "command.txt"
        log.write_text("")
        torch.set_num_threads(1)  # a fork would lose OpenMP's threads and wait for them
        process = multiprocessing.get_context("fork").Process(target=target, args=(*arguments, self.folder))
        process.start()
        process.join()
        output = log.read_text(errors="replace")
        print(f"\n$ cbam100 {' '.join(arguments[0])}\n{output}[{process.exitcode}]", flush=True)
        return Outcome(process.exitcode or 0, output)


def enter(folder: Path, log: str) -> None:
    """Makes this fork a process like any other, in a folder and with an output of its own."""
    end_with_parent()
    torch.set_num_threads(THREADS)
    multiprocessing.set_start_method(None, force=True)  # the platform's for loader processes, not a fork server's
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _follow(words: list[str], folder: Path) -> None:
    enter(folder, "command.txt")
    sys.argv = ["cbam100", *words]
    main()


def _measure(words: list[str], path: Path, folder: Path) -> None:
    enter(folder, "command.txt")
    sys.argv = ["cbam100", *words]
    trainer = ClassifierCLI().trainer
    path.write_text(json.dumps({name: value.item() for name, value in trainer.callback_metrics.items()}))
