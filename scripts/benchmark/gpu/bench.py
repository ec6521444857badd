"""Tools of the benchmark's parts: sizes, goals, commands in child processes, and a record of what was found."""

import atexit
import json
import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
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
# Forks of a server that has imported everything, but used neither a GPU nor OpenMP, start without delay.
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [f"scripts.benchmark.gpu.{name}" for name in ("correctness", "speed", "host_syncs")]
PRELOADED += ["scripts.process", "torch.utils.tensorboard"]
THREADS = torch.get_num_threads()
METRICS = "metrics.json"
# multiprocessing runs the main module again in each fork, which has already imported it.
warnings.filterwarnings("ignore", "'scripts.main' found in sys.modules", RuntimeWarning)

# Goal and acceptable value of a figure, by its title in a run on a GPU.
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
    """Amount of work that the parts do; sides of images in pixels."""

    device: str
    num_classes: int
    train_images: int  # per class; a quarter as many for validation, an eighth for prediction
    jpeg_size: int
    image_size: int  # of the network's input
    backbone: str  # in the speed parts
    batch_sizes: tuple[int, int, int]  # small, medium and large
    images_per_class: int  # in the parts that read many files, which are copies of the training images
    limit_train_batches: int  # in the shortened fits
    workers: tuple[int, ...]  # numbers of loader processes to compare
    steps: int  # timed calls with the small batch; half as many with the medium one, a quarter with the large one
    precisions: tuple[str, str]  # values of --trainer.precision to try: the first with gradient clipping
    time_limit: float  # of the whole benchmark, in seconds
    patience: float  # factor on the time limits of the parts
    device_options: tuple[str, ...]  # put a command on the device
    fit_options: tuple[str, ...]  # for a fit at these sizes


GPU = Sizes(
    device="cuda", num_classes=100, train_images=8, jpeg_size=320, image_size=224, backbone="resnet50",
    batch_sizes=(16, 64, 256), images_per_class=207, limit_train_batches=24, workers=(4, 16), steps=40,
    precisions=("16-mixed", "32-true"), time_limit=360, patience=1,
    device_options=("--trainer.accelerator=gpu", "--trainer.devices=1"), fit_options=("--model.weights=none",),
)  # fmt: skip
REHEARSAL = Sizes(
    device="cpu", num_classes=12, train_images=8, jpeg_size=48, image_size=32, backbone="resnet18",
    batch_sizes=(2, 4, 8), images_per_class=8, limit_train_batches=4, workers=(1, 2), steps=4,
    precisions=("bf16-mixed", "32-true"), time_limit=480, patience=2,
    device_options=("--trainer.accelerator=cpu", "--trainer.devices=1", "--data.num_workers=1"),
    fit_options=("--model.weights=none", "--model.backbone=resnet18", "--data.image_size=32"),
)  # fmt: skip


class Outcome(NamedTuple):
    """Exit code of a command, negative after a signal, and its output."""

    exit_code: int
    output: str


Target = Callable[[Sequence[str], Path], None]


@dataclass(frozen=True)
class Bench:
    """Folders, sizes and tools that a part works with."""

    folder: Path  # of this part, in which its commands run
    shared: Path  # of the images for all parts
    sizes: Sizes

    @property
    def data(self) -> Path:
        """Root of the generated images."""
        return self.shared / "data"

    @property
    def many(self) -> Path:
        """Root of a data set with many files."""
        return self.shared / "many"

    def run_folder(self, name: str) -> RunFolder:
        """Returns the folder of the first run with that name."""
        return RunFolder(self.folder / RUNS / name / "version_0")

    def fact(self, name: str, value: str) -> None:
        """Records a fact about the machine."""
        self._record("facts", fact=name, value=value)

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        """Records whether a check passed."""
        self._record("checks", check=name, passed=bool(passed), detail=detail)

    def figure(self, name: str, unit: str, values: Sequence[float]) -> float:
        """Records the median and range of measured values and their goal, if there is one; returns the median."""
        median = statistics.median(values)
        spread = {"median": median, "lowest": min(values), "highest": max(values), "values": len(values)}
        goals = dict(zip(("goal", "acceptable"), GOALS.get(name, ()), strict=False))
        self._record("figures", name=name, unit=unit, **spread, **goals)
        return median

    def _record(self, kind: str, **record: Any) -> None:
        with open(self.folder / f"{kind}.jsonl", "ab") as file:  # written at once, as the part may be killed
            file.write(json.dumps(record).encode() + b"\n")

    def callback_option(self, callback: type[Callback], **arguments: Any) -> str:
        """Returns the option that adds a callback to a fit."""
        entry = {"class_path": f"{callback.__module__}.{callback.__name__}", "init_args": arguments}
        path = self.folder / f"{callback.__name__}.yaml"
        path.write_text(yaml.safe_dump({"trainer": {"callbacks": [entry]}}))
        return f"--config={path}"

    def fit_words(self, root: Path, *options: str) -> list[str]:
        """Returns the command line of a fit on ``root`` at these sizes."""
        return ["fit", *self.sizes.device_options, *self.sizes.fit_options, f"--data.root={root}", *options]

    def command(self, *words: str) -> Outcome:
        """Runs ``cbam100`` in a child process, which is killed with this one."""
        return self._outcome(_run_command, words)

    def succeed(self, *words: str) -> str:
        """Runs ``cbam100`` and returns its output.

        Raises:
            RuntimeError: The command failed.
        """
        return self._succeed(_run_command, words)

    def metrics(self, *words: str) -> dict[str, float]:
        """Runs a ``validate`` and returns its metrics at full precision.

        Raises:
            RuntimeError: The command failed.
        """
        self._succeed(_run_validate, words)
        return json.loads((self.folder / METRICS).read_text())

    def _succeed(self, target: Target, words: Sequence[str]) -> str:
        outcome = self._outcome(target, words)
        if outcome.exit_code:
            raise RuntimeError(f"cbam100 {' '.join(words)} ended with exit code {outcome.exit_code}:\n{outcome.output}")
        return outcome.output

    def _outcome(self, target: Target, words: Sequence[str]) -> Outcome:
        log = self.folder / "command.txt"
        log.write_text("")
        torch.set_num_threads(1)  # a fork would lose OpenMP's threads and wait for them
        process = multiprocessing.get_context("fork").Process(target=target, args=(words, self.folder))
        process.start()
        process.join()
        output = log.read_text(errors="replace")
        print(f"\n$ cbam100 {' '.join(words)}\n{output}[{process.exitcode}]", flush=True)
        return Outcome(process.exitcode or 0, output)


def enter(folder: Path, log: str) -> None:
    """Turns this fork into an ordinary process that works in ``folder`` and prints to the file ``log`` there."""
    end_with_parent()
    torch.set_num_threads(THREADS)
    multiprocessing.set_start_method(None, force=True)  # the platform's default, for loader processes
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _run_command(words: Sequence[str], folder: Path) -> None:
    with _interpreter(words, folder):
        main()


def _run_validate(words: Sequence[str], folder: Path) -> None:
    with _interpreter(words, folder):
        metrics = ClassifierCLI().trainer.callback_metrics
        (folder / METRICS).write_text(json.dumps({name: value.item() for name, value in metrics.items()}))


@contextmanager
def _interpreter(words: Sequence[str], folder: Path) -> Iterator[None]:
    enter(folder, "command.txt")
    sys.argv = ["cbam100", *words]
    try:
        yield
    finally:
        atexit._run_exitfuncs()  # to remove caches and stuck loader processes; multiprocessing skips them in a fork
