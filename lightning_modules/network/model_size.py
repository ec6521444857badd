"""The size of a model in bytes, and the options that would make it smaller."""

from typing import Any, get_args

import torch
from torch import nn

from lightning_modules.network.resnet_cbam import Backbone, ResNetCBAM
from lightning_modules.network.rounding import as_stored

BYTES_PER_MB = 10**6
BYTES_PER_MIB = 2**20


def model_size_bytes(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Returns the bytes of all parameters and persistent buffers, stored in ``dtype`` or else as they are.

    >>> model_size_bytes(nn.Linear(3, 2))  # 3 · 2 weights and 2 biases of 4 bytes
    32
    >>> model_size_bytes(nn.Linear(3, 2), torch.float16)
    16
    """
    return sum(tensor.nbytes for tensor in stored_shapes(model, dtype).values())


def stored_shapes(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Returns the model's state dict as a file holds it, without memory for values."""
    return {name: as_stored(tensor.to("meta"), dtype) for name, tensor in model.state_dict().items()}


def parameter_count(model: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def part_sizes(network: nn.Module, dtype: torch.dtype | None = None) -> dict[str, int]:
    """Returns the bytes of each child module by name, stored in ``dtype``; children without tensors are left out."""
    sizes = {name: model_size_bytes(part, dtype) for name, part in network.named_children()}
    return {name: size for name, size in sizes.items() if size}


def format_size(size: int) -> str:
    """Formats a size in bytes in both units that "MB" can mean.

    >>> format_size(95_412_952)
    '95.41 MB (90.99 MiB)'
    """
    return f"{size / BYTES_PER_MB:.2f} MB ({size / BYTES_PER_MIB:.2f} MiB)"


def fitting_changes(
    num_classes: int, architecture: dict[str, Any], limit: int, dtype: torch.dtype | None = None
) -> list[tuple[str, int]]:
    """Finds single changes to ``architecture`` that bring the network within ``limit`` bytes.

    Args:
        num_classes: Width of the head.
        architecture: Keyword arguments of ``ResNetCBAM``.
        limit: Largest allowed size in bytes.
        dtype: Type that weights are stored in, by default as they are made.

    Returns:
        Pairs of a command-line flag and the resulting size in bytes, largest first.
    """
    changes: list[dict[str, Any]] = [{"backbone": backbone} for backbone in get_args(Backbone)]
    changes += [{"attention": "none"}, {"attention_placement": "stage"}, {"reduction_ratio": 128}]
    fitting = []
    for change in changes:
        with torch.device("meta"):  # shapes without memory
            size = model_size_bytes(ResNetCBAM(num_classes, **{**architecture, **change}), dtype)
        (name, value), *_ = change.items()
        if size <= limit and architecture.get(name) != value:
            fitting.append((f"--model.{name} {value}", size))
    return sorted(fitting, key=lambda pair: -pair[1])
