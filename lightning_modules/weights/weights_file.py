"""Reads tensors from a weights file, and never runs code that a file may carry."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from datamodules.files.errors import UserError

SAFETENSORS_SUFFIX = ".safetensors"


def load_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU; only plain types and tensors are accepted.

    Raises:
        UserError: No such file, or it is damaged, of another kind, or holds objects.
    """
    _require_file(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("compressed content, which torch never writes, can be of any size")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises almost any type on a file that is not its own
        raise UserError(
            f"expected {path} to be a file that torch.save wrote, with tensors and plain values only; it cannot be "
            f"read so ({type(error).__name__}): check that it is complete and comes from where you think"
        ) from error


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        UserError: No such file, or it is damaged or of another kind.
    """
    _require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"expected {path} to be a safetensors file, it cannot be read so ({error}): check that it is complete"
        ) from error


def load_state_dict(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a ``.pth`` or ``.safetensors`` file by name, and the metadata that the latter may have.

    Raises:
        UserError: Neither suffix, no such file, or a file that holds something else.
    """
    if path.suffix == SAFETENSORS_SUFFIX:
        return load_safetensors(path)
    if path.suffix != ".pth":
        raise UserError(f"expected a weights file ending in .pth or .safetensors, got {path}: export it as one of them")
    content = load_torch_file(path)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(f"expected {path} to be a state dict (tensors by name), it holds something else: re-save it")
    return content, {}


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"expected a file at {path}, there is none: check the path")
