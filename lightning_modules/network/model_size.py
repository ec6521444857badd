"""The size of a model in bytes, and the options that would make it smaller."""

from typing import Any, get_args

import torch
from torch import nn

from lightning_modules.network.resnet_cbam import Backbone, ResNetCBAM

BYTES_PER_MB = 10**6
BYTES_PER_MIB = 2**20


def model_size_bytes(model: nn.Module) -> int:
    """Returns the bytes of all parameters and persistent buffers.

    >>> model_size_bytes(nn.Linear(3, 2))  # 3 · 2 weights and 2 biases of 4 bytes
    32
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def parameter_count(model: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def part_sizes(network: nn.Module) -> dict[str, int]:
    """Returns the bytes of each child module by name; children without tensors are left out."""
    sizes = {name: model_size_bytes(part) for name, part in network.named_children()}
    return {name: size for name, size in sizes.items() if size}


def format_size(size: int) -> str:
    """Formats a size in bytes in both units that "MB" can mean.

    >>> format_size(95_412_952)
    '95.41 MB (90.99 MiB)'
    """
    return f"{size / BYTES_PER_MB:.2f} MB ({size / BYTES_PER_MIB:.2f} MiB)"


def fitting_changes(num_classes: int, architecture: dict[str, Any], limit: int) -> list[tuple[str, int]]:
    """Finds single changes to ``architecture`` that bring the network within ``limit`` bytes.

    Args:
        num_classes: Width of the head.
        architecture: Keyword arguments of ``ResNetCBAM``.
        limit: Largest allowed size in bytes.

    Returns:
        Pairs of a command-line flag and the resulting size in bytes, largest first.
    """
    changes: list[dict[str, Any]] = [{"backbone": backbone} for backbone in get_args(Backbone)]
    changes += [{"attention": "none"}, {"attention_placement": "stage"}, {"reduction_ratio": 128}]
    fitting = []
    for change in changes:
        with torch.device("meta"):  # shapes without memory
            size = model_size_bytes(ResNetCBAM(num_classes, **{**architecture, **change}))
        (name, value), *_ = change.items()
        if size <= limit and architecture.get(name) != value:
            fitting.append((f"--model.{name} {value}", size))
    return sorted(fitting, key=lambda pair: -pair[1])
