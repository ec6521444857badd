"""Compares what the processes of a run begin from, before they work together."""

import hashlib
import platform
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.processes import fail, gather
from callbacks.trainer_parts import data_of


class _Start(NamedTuple):
    host: str
    checkpoint: str  # with the beginning of its SHA-256, or "nothing"
    data: dict[str, dict[str, Any]]


class SameStart(Callback):
    """Ends a run whose processes begin from different files, which machines without a common disk may hold.

    Each process looks for itself. Where one resumes and another finds nothing, they would wait for each other forever;
    where the images differ, each would take its share of another list.

    Args:
        checkpoint: What this process has read its model from.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compares; a collective operation.

        Raises:
            UserError: A process begins from another checkpoint or other images than the first.
        """
        if trainer.world_size == 1:
            return
        data = data_of(trainer).fingerprint
        first, *others = gather(trainer, _Start(platform.node(), _described(self.checkpoint), data))
        for rank, other in enumerate(others, 1):
            if other.checkpoint != first.checkpoint:
                fail(
                    trainer,
                    f"expected all processes to begin from one checkpoint, the first on {first.host} has "
                    f"{first.checkpoint}, process {rank} on {other.host} has {other.checkpoint}: give all machines one "
                    "disk, or copy the run folder to each",
                )
            for split, facts in first.data.items():
                if other.data[split] != facts:
                    fail(
                        trainer,
                        f"expected all processes to find the same images of {split}, the first on {first.host} finds "
                        f"{facts['images']}, process {rank} on {other.host} {other.data[split]['images']} (names or "
                        "sizes in bytes differ): give all machines one disk, or copy the images to each",
                    )


def _described(checkpoint: str | None) -> str:
    if not checkpoint:
        return "nothing"
    with open(checkpoint, "rb") as file:
        return f"{Path(checkpoint).name} ({hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"
