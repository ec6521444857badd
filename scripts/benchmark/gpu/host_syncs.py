"""Counts how often the host waits for the GPU in a training step."""

import warnings
from contextlib import ExitStack
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from scripts.benchmark.gpu.bench import Bench
from scripts.benchmark.gpu.correctness import ONE_EPOCH

LINE = "host syncs of batch"
SYNC = "called a synchronizing CUDA operation"  # of torch's warnings; its one on the mode itself says synchronizing too
ONE_IN = 8  # one step in eight reads the loss


class CountHostSyncs(Callback):
    """Prints the number and the places of host syncs in each training step but the first two, which do set-up work."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._caught: list[warnings.WarningMessage] = []

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            self._caught = self._stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            if torch.cuda.is_available():
                torch.cuda.set_sync_debug_mode("warn")
                self._stack.callback(torch.cuda.set_sync_debug_mode, "default")
        elif batch_idx > 2:  # the previous step has just ended
            places = [f"{x.filename}:{x.lineno}" for x in self._caught if SYNC in str(x.message)]
            print(f"{LINE} {batch_idx - 1}: {len(places)} {' '.join(places)}", flush=True)
            self._caught.clear()

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stack.close()


def host_syncs(bench: Bench) -> None:
    """Counts the host syncs in a training step with torch.cuda.set_sync_debug_mode."""
    output = bench.succeed(*bench.fit_words(bench.data, *ONE_EPOCH, bench.callback_option(CountHostSyncs)))
    counts = [int(line.split()[5]) for line in output.splitlines() if line.startswith(LINE)]
    bench.figure("host syncs per training step", "", counts)
    steps = sum(map(bool, counts))
    bench.check(
        f"about one step in {ONE_IN} syncs at most", steps <= len(counts) // ONE_IN + 1, f"{steps} of {len(counts)}"
    )
