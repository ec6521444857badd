"""How large a model is, in bytes, and which smaller ones there are."""

from typing import Any, get_args

import torch
from torch import nn

from lightning_modules.network.resnet_cbam import Backbone, ResNetCBAM

BYTES_PER_MB = 10**6
BYTES_PER_MIB = 2**20


def model_size_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and persistent buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def parameter_count(model: nn.Module) -> int:
    """Number of all parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def part_sizes(network: nn.Module) -> dict[str, int]:
    """Bytes of each child that has any, by name."""
    sizes = {name: model_size_bytes(part) for name, part in network.named_children()}
    return {name: size for name, size in sizes.items() if size}


def format_size(size: int) -> str:
    """Writes ``size`` bytes in both units that "MB" can mean: ``95.41 MB (90.99 MiB)``."""
    return f"{size / BYTES_PER_MB:.2f} MB ({size / BYTES_PER_MIB:.2f} MiB)"


def fitting_changes(num_classes: int, architecture: dict[str, Any], limit: int) -> list[tuple[str, int]]:
    """Single changes to ``architecture`` that bring the network within ``limit`` bytes.

    Args:
        num_classes: Width of the head.
        architecture: Keyword arguments of ``ResNetCBAM``.
        limit: Bytes.

    Returns:
        Pairs of a command-line flag and the size in bytes it leads to, largest first.
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
