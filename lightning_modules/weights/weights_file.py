"""Reading of tensors from weights files, without ever running code that a file may carry."""

import json
import math
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from datamodules.files.errors import UserError

SAFETENSORS_SUFFIX = ".safetensors"
LENGTH_BYTES, ALIGNMENT = 8, 8  # of a safetensors file: its header's length comes first, and the header is padded


def load_torch_file(path: Path) -> Any:
    """Loads what ``torch.save`` wrote, onto the CPU; only plain types and tensors are accepted.

    Raises:
        UserError: The file is missing, damaged, of another format, or contains other objects.
    """
    _require_file(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise ValueError("compressed, which torch never writes, and so of any size")
        with torch.serialization.safe_globals([Namespace]):  # a run's options, in torchvision's and timm's checkpoints
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises almost any type on a file that is not its own
        raise UserError(
            f"cannot load {path} ({type(error).__name__}): it must be a complete file written by torch.save, with "
            "tensors and plain values only, such as torch.save(model.state_dict(), FILE)"
        ) from error


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Loads the tensors and the metadata of a safetensors file.

    Raises:
        UserError: The file is missing, damaged or of another format.
    """
    _require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot load {path} as a safetensors file ({error}): check that it is complete") from error


def safetensors_size(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Returns the bytes that a safetensors file of these tensors and this metadata takes, without making one.

    >>> safetensors_size({"x": torch.zeros(4)}, {}) - safetensors_size({"x": torch.zeros(3)}, {})  # of 4 bytes each
    4
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    # In the library's order, which decides how many digits the offsets have: wide types first, then by name.
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        end = offset + tensor.numel() * tensor.element_size()
        kind = ("F" if tensor.is_floating_point() else "I") + str(8 * tensor.element_size())
        kind = "BF16" if tensor.dtype == torch.bfloat16 else kind
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return LENGTH_BYTES + math.ceil(length / ALIGNMENT) * ALIGNMENT + offset


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"there is no file at {path}: check the path")
