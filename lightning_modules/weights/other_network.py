"""How the network that a weights file was made with differs from another."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
import torchvision
from torch import Tensor

from lightning_modules.network.resnet_cbam import ATTENTION_PREFIX, HEAD_PREFIX, Backbone
from lightning_modules.weights.state_dicts import COUNTER, StateDict

ATTENTION_OPTIONS = ("attention", "attention_placement", "attention_gate", "reduction_ratio", "spatial_kernel_size")


def differing_options(state: StateDict, ours: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> list[str]:
    """Names the options of ``ResNetCBAM`` that differ, the most important first.

    Those of attention modules count only if the file has some; otherwise the network's start at random.

    Args:
        state: What the file holds.
        ours: State dict of the network that is to take it.
        architecture: Options of that network, as far as they are to be compared.

    Returns:
        One entry per option, such as ``backbone resnet34 instead of resnet18``.
    """
    stated: dict[str, Any] = {}
    if _trunk(state.tensors) != _trunk(ours):
        stated["backbone"] = backbone_of(state.tensors) or architecture.get("backbone")
    if any(name.startswith(ATTENTION_PREFIX) for name in state.tensors):
        options = {name: state.settings.get(name) for name in ATTENTION_OPTIONS}
        stated |= {name: value for name, value in options.items() if isinstance(value, str | int)}
        stated["attention"] = "cbam"
    if architecture.get("attention") == "none":  # of which no other option matters
        stated = {name: stated[name] for name in ("backbone", "attention") if name in stated}
    return [
        f"{name} {stated[name]} instead of {architecture[name]}"
        for name in ("backbone", *ATTENTION_OPTIONS)
        if name in stated and stated[name] != architecture.get(name, stated[name])
    ]


def backbone_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns the backbone that a trunk of these names and shapes is of, or None.

    >>> backbone_of(torchvision.models.get_model("resnext50_32x4d").state_dict())
    'resnext50_32x4d'
    """
    trunk = _trunk(tensors)
    for name in get_args(Backbone):
        with torch.device("meta"):  # shapes without memory
            if trunk == _trunk(torchvision.models.get_model(name, weights=None).state_dict()):
                return name
    return None


def _trunk(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    apart = (ATTENTION_PREFIX, HEAD_PREFIX)
    return {name: t.shape for name, t in tensors.items() if not name.startswith(apart) and not name.endswith(COUNTER)}
