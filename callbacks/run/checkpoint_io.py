"""Writing and reading of Lightning's checkpoints."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from typing_extensions import override

from datamodules.files.atomic_file import write_bytes
from lightning_modules.weights.weights_file import load_torch_file


class CheckpointFile(CheckpointIO):
    """Writes checkpoints atomically, and reads only tensors and plain values.

    Replaces Lightning 2.6.6's plugin, which builds the file in ``$TMPDIR`` and moves it, which is not atomic between
    file systems; does not sync it to disk; ignores a refused permission (issue 21800); and unpickles any object.

    Args:
        path: Path of the checkpoint that a fit resumes from, if it has been read already.
        content: Content of that checkpoint; handed out once and not kept, since it is as large as the model.
    """

    def __init__(self, path: str | None = None, content: dict[str, Any] | None = None) -> None:
        self._read = {Path(path): content} if path and content else {}

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        with suppress(OSError):  # which writing reports
            path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # to a full disk, torch would raise a RuntimeError without a path
        torch.save(checkpoint, content)
        write_bytes(path, content.getbuffer())

    @override
    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads the file to the CPU; ``weights_only`` cannot be switched off."""
        return self._read.pop(Path(path), None) or load_torch_file(Path(path))

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
