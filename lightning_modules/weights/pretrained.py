"""Loading of pretrained weights, by torchvision's or timm's name or from a file, into a ``ResNetCBAM``."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from datamodules.files.errors import UserError, listed
from lightning_modules.network.resnet_cbam import ATTENTION_PREFIX, HEAD_PREFIX, Backbone, ResNetCBAM
from lightning_modules.weights.other_network import differing_options
from lightning_modules.weights.state_dicts import COUNTER, SUFFIXES, StateDict, read_state_dict
from lightning_modules.weights.timm_hub import TIMM_PREFIX, timm_state_dict


def load_pretrained(
    network: ResNetCBAM,
    weights: str,
    backbone: Backbone,
    class_names: list[str],
    architecture: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Copies pretrained tensors into ``network`` and reports which.

    The head is left out if it has another width or other classes, or the same in another order; that of weights by name
    always is. The head and the attention modules may be absent from the file. Every other tensor must be present with
    its shape, and no tensor may be left over.

    Args:
        network: Network to change in place.
        weights: Name in torchvision's registry (``IMAGENET1K_V2``, ``IMAGENET1K_V1``), ``timm/`` and one of timm's,
            ``none``, or path of a file whose name ends in one of ``SUFFIXES``.
        backbone: Backbone that a name refers to.
        class_names: Names of the classes, in the order of the network's outputs.
        architecture: Options that the network was built with, to be compared with what the file states of its own.

    Returns:
        One line: the tensors loaded, from where in the file, left out, and still at their random initialisation.

    Raises:
        UserError: The weights cannot be found or read, or do not match the network.
    """
    if weights == "none":
        return "weights: none, all tensors start at their random initialisation"
    if is_file := weights.lower().endswith(SUFFIXES):
        found = read_state_dict(Path(weights))
    elif weights.startswith(TIMM_PREFIX):
        found = timm_state_dict(weights, backbone)
    else:
        found = _registry_state_dict(weights, backbone)
    if differing := differing_options(found, network.state_dict(), {"backbone": backbone, **architecture}):
        raise UserError(
            f"{weights} is of another network ({listed(differing)}): choose the --model options that it was made with, "
            "or other weights"
        )
    state, classes, source = found.tensors, found.settings.get("class_names"), found.remark
    head = state.get("fc.weight")
    foreign, remark = False, ""
    if head is not None and head.ndim == 2:
        equal_width = len(head) == len(class_names)
        foreign = not (is_file and equal_width and classes in (None, list(class_names)))
        if foreign:
            why = ", as they are different or in another order" if is_file and equal_width else ""
            remark = f"; its head of {len(head)} classes is left out{why}"
        elif classes is None:
            remark = f"; its head of {len(head)} classes is used, though the file does not name them"
    taken = {name: value for name, value in state.items() if not (foreign and name.startswith(HEAD_PREFIX))}
    new = _check_match(network, taken, weights)
    network.load_state_dict(taken, strict=False)
    fresh = f"; randomly initialised: {listed(new)}" if new else ""
    return f"weights: {len(taken)} tensors loaded from {weights}{f', {source}' if source else ''}{remark}{fresh}"


def _check_match(network: ResNetCBAM, taken: dict[str, Tensor], weights: str) -> list[str]:
    """Returns the sorted names of tensors that may stay random, and raises ``UserError`` for all others."""
    wanted = network.state_dict()
    absent = set(wanted) - set(taken)
    parts = [{name for name in wanted if name.startswith(prefix)} for prefix in (HEAD_PREFIX, ATTENTION_PREFIX)]
    allowed = {name for part in parts if part <= absent for name in part}
    # Files from before torch 0.4.1 lack these counters, and load_state_dict supplies them.
    counters = {name for name in absent if name.endswith(COUNTER)}
    missing = sorted(absent - allowed - counters)
    unexpected = sorted(set(taken) - set(wanted))
    reshaped = sorted(
        f"{name} {tuple(value.shape)} for {tuple(wanted[name].shape)}"
        for name, value in taken.items()
        if name in wanted and value.shape != wanted[name].shape
    )
    faults = [
        f"{kind} {listed(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if faults:
        raise UserError(
            f"{weights} does not fit this network ({'; '.join(faults)}): choose the --model.backbone and attention "
            "options that the file was made with"
        )
    return sorted(allowed)


def _registry_state_dict(name: str, backbone: Backbone) -> StateDict:
    registry = {entry.name: entry for entry in torchvision.models.get_model_weights(backbone)}  # without aliases
    if name not in registry:
        raise UserError(
            f"--model.weights must be one of {', '.join(registry)} for {backbone}, {TIMM_PREFIX}NAME for timm's of "
            f"that name, none, or a file whose name ends in {', '.join(SUFFIXES)}, got {name!r}"
        )
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(registry[name].url).name
    if not cached.is_file():
        try:
            torch.hub.load_state_dict_from_url(registry[name].url, check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"cannot download {name} for {backbone} ({error}): connect to the network, put the file at {cached}, "
                "or choose --model.weights FILE or none"
            ) from error
    return read_state_dict(cached)
