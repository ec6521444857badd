"""What the parts of the benchmark share: sizes, goals, commands in processes of their own, and a record of findings."""

import atexit
import json
import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from pytorch_lightning import Callback

from callbacks.run.run_folder import RUNS, RunFolder
from datamodules.workers.parent_watch import end_with_parent
from scripts.cli import ClassifierCLI
from scripts.main import main

REPOSITORY = Path(__file__).parents[3]
# Forks of a server that has imported everything, but has touched neither a GPU nor OpenMP, start at once.
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [
    "scripts.benchmark.gpu.correctness",
    "scripts.benchmark.gpu.speed",
    "scripts.benchmark.gpu.host_syncs",
    "scripts.process",
    "torch.utils.tensorboard",
]
THREADS = torch.get_num_threads()
# multiprocessing runs the main module again in each fork, where it has been imported by then.
warnings.filterwarnings("ignore", "'scripts.main' found in sys.modules", RuntimeWarning)

# What is aimed at, and what is still acceptable, by figure. The titles are those of a run on a GPU.
GOALS = {
    "training from files, 16 workers, cache ram, throughput after epoch 1": (5000.0, 2800.0),
    "training from files, 16 workers, cache ram, epoch of 20,700 images": (4.2, 7.5),
    "training step, batch 16, attention stage": (4.0, 8.0),
    "inference latency, batch 16": (1.2, 2.5),
    "inference throughput, batch 256": (25_000.0, 12_000.0),
    "attention stage, batch 256, added to the step time": (2.9, 8.0),
    "attention block, batch 256, added to the step time": (10.0, 20.0),
}


@dataclass(frozen=True)
class Sizes:
    """How much work there is.

    Attributes:
        device: Device that the work runs on, as torch names it.
        num_classes: Number of classes drawn.
        train_images: Training images drawn per class; a quarter as many for validation, an eighth for prediction.
        jpeg_size: Side of a drawn JPEG, in pixels.
        image_size: Side of the network's input, in pixels.
        backbone: Backbone of the network in the speed parts.
        batch_sizes: A small, a medium and a large batch, in images.
        images_per_class: Training images per class in the parts that read many files (copies of the drawn ones).
        limit_train_batches: Batches per epoch of the shortened fits.
        workers: Numbers of loader processes to compare.
        steps: Timed calls at the small batch; a half of them at the medium one, a quarter at the large one.
        precisions: ``--trainer.precision`` values to try.
        time_limit: Limit of the whole benchmark, in seconds.
        device_options: Options that put a command on the device.
        fit_options: Options of a fit at these sizes.
    """

    device: str
    num_classes: int
    train_images: int
    jpeg_size: int
    image_size: int
    backbone: str
    batch_sizes: tuple[int, int, int]
    images_per_class: int
    limit_train_batches: int
    workers: tuple[int, ...]
    steps: int
    precisions: tuple[str, ...]
    time_limit: float
    device_options: tuple[str, ...]
    fit_options: tuple[str, ...]


GPU = Sizes(
    device="cuda", num_classes=100, train_images=8, jpeg_size=320, image_size=224, backbone="resnet50",
    batch_sizes=(16, 64, 256), images_per_class=207, limit_train_batches=24, workers=(4, 8, 16), steps=40,
    precisions=("16-mixed", "bf16-mixed", "32-true"), time_limit=360,
    device_options=("--trainer.accelerator=gpu", "--trainer.devices=1"), fit_options=("--model.weights=none",),
)  # fmt: skip
REHEARSAL = Sizes(
    device="cpu", num_classes=12, train_images=8, jpeg_size=48, image_size=32, backbone="resnet18",
    batch_sizes=(2, 4, 8), images_per_class=8, limit_train_batches=4, workers=(1, 2), steps=4,
    precisions=("bf16-mixed", "32-true"), time_limit=480,
    device_options=("--trainer.accelerator=cpu", "--trainer.devices=1", "--data.num_workers=1"),
    fit_options=("--model.weights=none", "--model.backbone=resnet18", "--data.image_size=32"),
)  # fmt: skip


class Outcome(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and what it printed."""

    exit_code: int
    output: str


class Bench:
    """What a part works with.

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
        """Root of the drawn images."""
        return self.shared / "data"

    @property
    def many(self) -> Path:
        """Root of a data set of many files."""
        return self.shared / "many"

    def run_folder(self, name: str) -> RunFolder:
        """Of the first run of that name."""
        return RunFolder(self.folder / RUNS / name / "version_0")

    def fact(self, name: str, value: str) -> None:
        """Records what the machine is."""
        self._record("facts", fact=name, value=value)

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        """Records whether a promise was kept."""
        self._record("checks", check=name, passed=bool(passed), detail=detail)

    def figure(self, name: str, unit: str, values: Sequence[float]) -> float:
        """Records the median and the range of what was measured, beside its goal, and returns the median."""
        median = statistics.median(values)
        spread = {"median": median, "lowest": min(values), "highest": max(values), "values": len(values)}
        goals = dict(zip(("goal", "acceptable"), GOALS.get(name, ()), strict=False))
        self._record("figures", name=name, unit=unit, **spread, **goals)
        return median

    def _record(self, kind: str, **record: Any) -> None:
        with open(self.folder / f"{kind}.jsonl", "a") as file:  # at once, as the part may be killed
            file.write(json.dumps(record) + "\n")

    def callback_option(self, callback: type[Callback], **arguments: Any) -> str:
        """The option that adds a callback to a fit."""
        entry = {"class_path": f"{callback.__module__}.{callback.__name__}", "init_args": arguments}
        path = self.folder / f"{callback.__name__}.yaml"
        path.write_text(yaml.safe_dump({"trainer": {"callbacks": [entry]}}))
        return f"--config={path}"

    def command(self, *words: str) -> Outcome:
        """Runs ``cbam100`` in a process of its own, which ends with this one."""
        return self._outcome(_run_command, list(words))

    def succeed(self, *words: str) -> str:
        """Runs a command and returns what it printed.

        Raises:
            RuntimeError: It failed.
        """
        return _require(words, self.command(*words))

    def metrics(self, *words: str) -> dict[str, float]:
        """Runs a ``validate`` and returns its metrics at full precision.

        Raises:
            RuntimeError: It failed.
        """
        path = self.folder / "metrics.json"
        _require(words, self._outcome(_run_validate, list(words), path))
        return json.loads(path.read_text())

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


def _require(words: Sequence[str], outcome: Outcome) -> str:
    if outcome.exit_code:
        raise RuntimeError(f"cbam100 {' '.join(words)} ended with exit code {outcome.exit_code}:\n{outcome.output}")
    return outcome.output


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


def _run_command(words: list[str], folder: Path) -> None:
    with _interpreter(words, folder):
        main()


def _run_validate(words: list[str], path: Path, folder: Path) -> None:
    with _interpreter(words, folder):
        trainer = ClassifierCLI().trainer
        path.write_text(json.dumps({name: value.item() for name, value in trainer.callback_metrics.items()}))


@contextmanager
def _interpreter(words: list[str], folder: Path) -> Iterator[None]:
    enter(folder, "command.txt")
    sys.argv = ["cbam100", *words]
    try:
        yield
    finally:
        atexit._run_exitfuncs()  # which remove caches and stuck loader processes; a fork of multiprocessing has none
