"""``cbam100 benchmark step --with``: times the training steps of fits that differ in some options.

Each fit is the project's own, in a process of its own: the time of a step is that between two batches, with their
transfer, what the data module does to them on the device, the loss, the optimiser, the schedule and all callbacks.
"""

import math
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from datamodules.image_dataset import Batch
from scripts.benchmark.step import CLASSES
from scripts.benchmark.stepper import stepper
from scripts.benchmark.timing import synchronize
from scripts.cli import ClassifierCLI
from scripts.demo.make_demo_data import make_demo_data
from scripts.environment import module_process
from scripts.process import run

WARM_UP = 3  # steps
MANY = 10**9  # batches, which no epoch will have


def benchmark_options(
    shared: Sequence[str], contenders: Sequence[str], batch_size: int, *, rounds: int, steps: int
) -> list[dict[str, Any]]:
    """Returns the rows of the table: time of a step, and how much longer than without the options it takes.

    Args:
        shared: Options of every fit.
        contenders: Options to add in a fit, separated by blanks as ``model.compile=gates model.dropout=0``.
        batch_size: Images per step.
        rounds: Number of rounds, in each of which every fit takes a turn.
        steps: Steps per turn.

    Raises:
        UserError: A fit ends, as with an option that is wrong.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder) / "data"
        images = math.ceil(batch_size / CLASSES)
        make_demo_data(root, size=64, num_classes=CLASSES, train_images=images, val_images=1, test_images=0)
        epochs = WARM_UP + rounds * steps  # so that the run is long enough for options that depend on its length
        words = ["fit", f"--data.root={root}", f"--data.batch_size={batch_size}", "--data.num_workers=0"]
        words += [f"--trainer.max_epochs={epochs}", f"--model.restart_epochs={epochs}", "--model.weights=none"]
        words += ["--trainer.devices=1", "--trainer.num_sanity_val_steps=0", "--insight.every_n_epochs=0"]
        words += ["--trainer.logger=pytorch_lightning.loggers.TensorBoardLogger"]
        words += [f"--trainer.logger.init_args.save_dir={folder}", *shared]
        fits = {}
        for name in ("base", *contenders):
            added = [] if name == "base" else [f"--{word.lstrip('-')}" for word in shlex.split(name)]
            fits[name] = stack.enter_context(stepper(name, module_process(__name__, *words, *added)))
        for do in fits.values():
            do(WARM_UP)
        turns: dict[str, list[float]] = {name: [] for name in fits}
        for _ in range(rounds):
            for name, do in fits.items():
                turns[name].append(do(steps))
    return [_row(name, seconds, turns["base"]) for name, seconds in turns.items()]


def _row(name: str, seconds: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Compares turn by turn, so that a change in the machine's speed affects both."""
    lower, median, upper = np.quantile(100 * (np.divide(seconds, base) - 1), (0.25, 0.5, 0.75))
    quartiles = {"added %": float(median), "lower quartile": float(lower), "upper quartile": float(upper)}
    return {"name": name, "ms": 1e3 * statistics.median(seconds), **quartiles}


class _TimedFit(ClassifierCLI):
    """A fit on one batch, which is loaded again for each step that the standard input asks for."""

    @override
    def after_instantiate_classes(self) -> None:
        super().after_instantiate_classes()
        load = self.datamodule.train_dataloader
        self.datamodule.train_dataloader = lambda: _Turns(next(iter(load())), self.trainer.strategy.root_device)


class _Turns:
    """Loads a batch as often as each line of the standard input says, and prints the mean seconds between two."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self._batch, self._device = batch, device

    def __len__(self) -> int:
        return MANY  # with a length Lightning loads no batch ahead

    def __iter__(self) -> Iterator[Batch]:
        with open(0, closefd=False) as orders:
            for line in orders:
                start = time.perf_counter()
                for _ in range(int(line)):
                    yield self._batch
                synchronize(self._device)
                print((time.perf_counter() - start) / int(line), file=sys.__stdout__, flush=True)
        raise SystemExit(0)  # whoever asked has ended


if __name__ == "__main__":
    sys.stdout = sys.stderr  # for what a fit prints
    run(cli=_TimedFit)
