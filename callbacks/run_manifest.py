"""``manifest.json``: what made a run folder what it is."""

import json
import platform
from pathlib import Path
from typing import Any

import PIL
import pytorch_lightning
import torch
import torchmetrics
import torchvision
from pytorch_lightning import Trainer

from callbacks.atomic_file import atomic_file
from datamodules.image_folder import ImageFolderDataModule
from lightning_modules.classifier import ImageClassifier
from lightning_modules.model_size import model_size_bytes, parameter_count


def write_manifest(path: Path, trainer: Trainer, model: ImageClassifier, best: dict[str, Any]) -> None:
    """Writes versions, seed, data fingerprint, class hash, size and the best epoch's metrics.

    Args:
        path: The file, replaced whole.
        trainer: With an ``ImageFolderDataModule`` that is set up.
        model: Being trained.
        best: Epoch and metrics of the best epoch so far.
    """
    data: ImageFolderDataModule = trainer.datamodule  # type: ignore[attr-defined]
    content: dict[str, Any] = {
        "versions": {
            "python": platform.python_version(),
            "pillow": PIL.__version__,
            **{m.__name__: m.__version__ for m in (torch, torchvision, pytorch_lightning, torchmetrics)},
        },
        "seed": data.seed,
        "data": data.fingerprint,
        "processes": trainer.world_size,
        "classes": len(model.classes),
        "class_digest": model.classes.digest,
        "parameters": parameter_count(model.network),
        "size_bytes": model_size_bytes(model.network),
        "best": best,
    }
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
