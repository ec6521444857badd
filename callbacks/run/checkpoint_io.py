"""How Lightning's checkpoints reach the disk and come back."""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from datamodules.files.atomic_file import write_bytes
from lightning_modules.weights.weights_file import load_torch_file


class CheckpointFile(CheckpointIO):
    """Writes a checkpoint whole or not at all, and reads plain values and tensors only.

    Own code, because Lightning 2.6.6 builds its file in ``$TMPDIR`` and moves it, which between file systems is a copy
    that a kill leaves half done; never syncs it to the disk; takes a refused permission for success (issue 21800); and
    unpickles whatever it is told to.

    Args:
        path: Of the checkpoint that a fit resumes, which has been read.
        content: What it holds; given away by the first ``load_checkpoint`` of it, since it is as large as the model.
    """

    def __init__(self, path: str | None = None, content: dict[str, Any] | None = None) -> None:
        self._read = {Path(path): content} if path and content else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes the file.

        Raises:
            UserError: It cannot be written; what stood there is as before.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # torch makes a RuntimeError without a path of a full disk
        torch.save(checkpoint, content)
        write_bytes(path, content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads the file to the CPU; ``weights_only`` cannot be switched off.

        Raises:
            UserError: No such file, or it is damaged, or holds objects.
        """
        return self._read.pop(Path(path), None) or load_torch_file(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes the file."""
        Path(path).unlink(missing_ok=True)
