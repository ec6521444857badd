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


def write_manifest(
    path: Path, trainer: Trainer, model: ImageClassifier, best: dict[str, Any], skipped: dict[str, dict[str, str]]
) -> None:
    """Writes versions, seed, data fingerprint, class hash, size, what was skipped and the best epoch's metrics.

    Args:
        path: The file, replaced whole.
        trainer: With an ``ImageFolderDataModule`` that is set up.
        model: Being trained.
        best: Epoch and metrics of the best epoch so far.
        skipped: By split, the reason for each path that could not be read.
    """
    data: ImageFolderDataModule = trainer.datamodule  # type: ignore[attr-defined]
    content: dict[str, Any] = {
        "versions": versions(),
        "seed": data.seed,
        "data": data.fingerprint,
        "processes": trainer.world_size,
        "classes": len(model.classes),
        "class_digest": model.classes.digest,
        "parameters": parameter_count(model.network),
        "size_bytes": model_size_bytes(model.network),
        "best": best,
        "skipped": skipped,
    }
    write_json(path, content)


def versions() -> dict[str, str]:
    """Of what the result depends on."""
    return {
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        **{module.__name__: module.__version__ for module in (torch, torchvision, pytorch_lightning, torchmetrics)},
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file whole; a name that is no UTF-8 is escaped."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
