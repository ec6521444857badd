"""Peak memory of a fit."""

import resource
import sys

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class PeakMemory(Callback):
    """Prints the peak memory of the first process at the end: of its GPU, itself and its largest loader."""

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not trainer.is_global_zero:
            return
        device = trainer.strategy.root_device
        if device.type == "cuda":
            print(f"peak memory: {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB of {device}")
        own, loader = (resident_peak(who) / 1e9 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        beside = f", {loader:.2f} GB of the largest process beside it" if loader else ""
        print(f"peak memory: {own:.2f} GB of the process{beside}")


def resident_peak(who: int = resource.RUSAGE_SELF) -> int:
    """Returns the most bytes that this process, or the largest of its ended children, held in memory."""
    return resource.getrusage(who).ru_maxrss * BYTES_PER_UNIT
