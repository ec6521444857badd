"""Pretrained weights, by torchvision's name or from a file, into a ``ResNetCBAM``."""

import json
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from datamodules.files.errors import UserError, listed
from lightning_modules.network.resnet_cbam import ATTENTION_PREFIX, HEAD_PREFIX, Backbone, ResNetCBAM
from lightning_modules.weights.weights_file import load_state_dict, load_torch_file


def load_pretrained(network: ResNetCBAM, weights: str, backbone: Backbone, class_names: list[str]) -> str:
    """Copies pretrained tensors into ``network`` and tells which.

    A head of another width, of other classes or of the same in another order is left out, and torchvision's always.
    Attention modules may be absent from the file, all of them at once; every other tensor must be there with its
    shape, and nothing else.

    Args:
        network: Changed in place.
        weights: A name in torchvision's registry (``IMAGENET1K_V2``, ``IMAGENET1K_V1``), ``none``, or the path of a
            ``.pth`` or ``.safetensors`` file.
        backbone: Which entry of the registry a name refers to.
        class_names: What the network's outputs stand for.

    Returns:
        One line: tensors taken, tensors left out, tensors that stay at their random initialisation.

    Raises:
        UserError: The weights cannot be had, or do not match the network.
    """
    if weights == "none":
        return "weights: none, every tensor starts at its random initialisation"
    header: dict[str, str] = {}
    if is_file := weights.endswith((".pth", ".safetensors")):
        state, header = load_state_dict(Path(weights))
    else:
        state = _registry_state_dict(weights, backbone)
    head, classes = state.get("fc.weight"), _classes_in(header)
    foreign, remark = False, ""
    if head is not None and head.ndim == 2:
        equal_width = len(head) == len(class_names)
        foreign = not (is_file and equal_width and classes in (None, list(class_names)))
        if foreign:
            why = ": they are others, or in another order" if is_file and equal_width else ""
            remark = f"; its head of {len(head)} classes is left out{why}"
        elif classes is None:
            remark = f"; its head of {len(head)} classes is taken, though the file does not say which they are"
    taken = {name: value for name, value in state.items() if not (foreign and name.startswith(HEAD_PREFIX))}
    new = _check_match(network, taken, foreign, weights)
    network.load_state_dict(taken, strict=False)
    fresh = f"; new and random: {listed(sorted(new))}" if new else ""
    return f"weights: {len(taken)} tensors taken from {weights}{remark}{fresh}"


def _classes_in(header: dict[str, str]) -> object:
    """What the header of an exported model calls its classes; None where there is nothing of the kind."""
    with suppress(ValueError, RecursionError):
        return json.loads(header.get("classes", "null"))
    return None


def _check_match(network: ResNetCBAM, taken: dict[str, Tensor], foreign_head: bool, weights: str) -> list[str]:
    """Returns the names that may stay new, or raises with those that may not."""
    wanted = network.state_dict()
    absent = set(wanted) - set(taken)
    attention = {name for name in wanted if name.startswith(ATTENTION_PREFIX)}
    allowed = {name for name in absent if foreign_head and name.startswith(HEAD_PREFIX)}
    allowed |= attention if attention <= absent else set()
    # Files from before torch 0.4.1 have no such counter, and load_state_dict supplies it.
    counters = {name for name in absent if name.endswith("num_batches_tracked")}
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
            f"expected {weights} to hold this network's tensors, found {'; '.join(faults)}: choose the "
            "--model.backbone and attention options that the file was made with"
        )
    return sorted(allowed)


def _registry_state_dict(name: str, backbone: Backbone) -> dict[str, Tensor]:
    registry = {entry.name: entry for entry in torchvision.models.get_model_weights(backbone)}  # without its aliases
    if name not in registry:
        raise UserError(
            f"expected --model.weights to be one of {', '.join(registry)} for {backbone}, none, or a .pth or "
            f".safetensors file, got {name!r}: choose one of them"
        )
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(registry[name].url).name
    if not cached.is_file():
        try:
            torch.hub.load_state_dict_from_url(registry[name].url, check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError) as error:
            raise UserError(
                f"expected to download {name} for {backbone}, which failed ({error}): connect to the network, put "
                f"the file at {cached}, or choose --model.weights FILE or none"
            ) from error
    return load_torch_file(cached)
