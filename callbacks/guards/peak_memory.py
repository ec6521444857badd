"""Peak memory of a fit."""

import sys

import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

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
        own, largest = resident_peak() / 1e9, resident_peak(of_children=True) / 1e9
        beside = f", {largest:.2f} GB of the largest process beside it" if largest else ""
        if own:
            print(f"peak memory: {own:.2f} GB of the process{beside}")


def resident_peak(of_children: bool = False) -> int:
    """Returns the most bytes that this process, or the largest of its ended children, held in memory; 0 if unknown."""
    if resource:
        who = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
        return resource.getrusage(who).ru_maxrss * BYTES_PER_UNIT
    return 0 if of_children else getattr(psutil.Process().memory_info(), "peak_wset", 0)
