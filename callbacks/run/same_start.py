"""A check that all processes of a run start from the same checkpoint and the same images."""

import hashlib
import platform
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from callbacks.processes import fail, gather
from callbacks.trainer_parts import data_of


class _Start(NamedTuple):
    host: str
    checkpoint: str  # name and start of the SHA-256, or "nothing"
    data: dict[str, dict[str, Any]]


class SameStart(Callback):
    """Ends a run whose processes start from different files, as machines without a shared disk may hold.

    If one process resumed and another found no checkpoint, they would wait for each other forever; if the images
    differed, each would take its share of a different list.

    Args:
        checkpoint: Checkpoint that this process has read its model from, or None.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        data = data_of(trainer).fingerprint
        first, *others = gather(trainer, _Start(platform.node(), _described(self.checkpoint), data))
        for rank, other in enumerate(others, 1):
            if other.checkpoint != first.checkpoint:
                fail(
                    trainer,
                    f"all processes must start from one checkpoint, but the first, on {first.host}, has "
                    f"{first.checkpoint} and process {rank}, on {other.host}, has {other.checkpoint}: use a shared "
                    "disk, or copy the run folder to each machine",
                )
            for split, facts in first.data.items():
                if other.data[split] != facts:
                    fail(
                        trainer,
                        f"all processes must find the same images of {split}, but the first, on {first.host}, finds "
                        f"{facts['images']} and process {rank}, on {other.host}, finds {other.data[split]['images']} "
                        "(names or sizes differ): use a shared disk, or copy the images to each machine",
                    )


def _described(checkpoint: str | None) -> str:
    if not checkpoint:
        return "nothing"
    with open(checkpoint, "rb") as file:
        return f"{Path(checkpoint).name} ({hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"
