"""Finds a ResNet's tensors in a weights file of any origin: under an entry, with a prefix, in half precision."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.files.errors import UserError, listed
from lightning_modules.weights.pruning import without_masks
from lightning_modules.weights.weights_file import SAFETENSORS_SUFFIX, load_safetensors, load_torch_file

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", SAFETENSORS_SUFFIX)

# Entries of a checkpoint that hold a state dict, as torchvision, timm, Lightning and most training scripts name them.
# An average of the weights is what its run measured, so it comes first, as in timm.
AVERAGED, PLAIN = ("model_ema", "state_dict_ema"), ("state_dict", "model", "model_state_dict")
DEPTH = 4  # of such entries inside each other; a forged file may hold itself

# torchvision and timm give the tensors of a plain ResNet the same names, of which these two tell a prefix.
FIRST, INNER = "conv1.weight", "layer1.0.conv1.weight"
COUNTER = "num_batches_tracked"
FLOATS = ("float32", "float16", "bfloat16", "float64")


class StateDict(NamedTuple):
    """The tensors by torchvision's names, what the file states of its model, and in words what was taken of it.

    Attributes:
        tensors: Those of one network.
        settings: Options of ``ImageClassifier`` by name, in a file of this project.
        remark: Empty if the whole file was taken as it is.
    """

    tensors: dict[str, Tensor]
    settings: Mapping[str, Any]
    remark: str = ""


def read_state_dict(path: Path) -> StateDict:
    """Reads a file whose name ends in one of ``SUFFIXES``.

    Raises:
        UserError: The file is missing or damaged, or does not hold the tensors of exactly one ResNet.
    """
    if path.name.lower().endswith(SAFETENSORS_SUFFIX):
        tensors, header = load_safetensors(path)
        architecture = _stated(header, "architecture")
        settings = dict(architecture) if isinstance(architecture, dict) else {}
        return _of_one_network(tensors, settings | {"class_names": _stated(header, "classes")}, [], path)
    content = load_torch_file(path)
    tensors, remarks = _unwrapped(content, path)
    settings = content.get("hyper_parameters")  # of a checkpoint of this project
    return _of_one_network(tensors, settings if isinstance(settings, dict) else {}, remarks, path)


def _stated(header: Mapping[str, str], name: str) -> object:
    """Returns an entry of the header that an export of this project has, or None."""
    with suppress(ValueError, RecursionError):
        return json.loads(header.get(name, "null"))
    return None


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises ``UserError`` if a tensor has a value that is NaN or infinite, which training would blame on images."""
    if unusual := [name for name, t in tensors.items() if t.layout != torch.strided or t.device.type == "meta"]:
        raise UserError(f"{path} has tensors without plain values, {listed(unusual)}: save them as dense tensors")
    if spoilt := [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise UserError(f"{path} has values that are NaN or infinite in {listed(spoilt)}: choose another file")


def _unwrapped(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the state dict in ``content``, and a remark on the entries it is under, if any."""
    entries: list[str] = []
    remarks: list[str] = []
    while isinstance(content, dict) and not _is_state_dict(content) and len(entries) < DEPTH:
        inside = [name for name in (*AVERAGED, *PLAIN) if _holds_tensors(content.get(name), DEPTH)]
        if len(inside) > 1 and inside[0] not in AVERAGED:
            raise UserError(
                f"{path} has weights in several entries, {listed(inside)}: save the one that is meant to a file of its "
                "own"
            )
        if not inside:
            break
        entries.append(inside[0])
        rather = f" rather than {listed(inside[1:])}" if inside[1:] else ""
        remarks = [f"from its entry {'.'.join(entries)}{rather}"]
        content = content[inside[0]]
    if not _is_state_dict(content):
        what = f"the entry {'.'.join(entries)} of {path}" if entries else str(path)
        there = f", but has {listed([str(name) for name in content])}" if isinstance(content, dict) and content else ""
        raise UserError(f"{what} is not a state dict of tensors by name{there}: save the model's state_dict() instead")
    return content, remarks


def _holds_tensors(content: Any, depth: int) -> bool:
    values = content.values() if isinstance(content, dict) and depth else ()
    return any(isinstance(value, Tensor) or _holds_tensors(value, depth - 1) for value in values)


def _is_state_dict(content: Any) -> bool:
    pairs = content.items() if isinstance(content, dict) else ()
    return bool(pairs) and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in pairs)


def _of_one_network(
    tensors: Mapping[str, Tensor], settings: dict[str, Any], remarks: list[str], path: Path
) -> StateDict:
    """Removes what stands before the names of a ResNet's tensors, whatever it is, and leaves out all other tensors."""
    tensors = without_masks(tensors)
    starts = [name.removesuffix(FIRST) for name in tensors if name.endswith(FIRST)]
    prefixes = [start for start in starts if start + INNER in tensors]
    if not prefixes:
        raise UserError(
            f"{path} must name its tensors as the ResNets of torchvision and timm do, such as {FIRST} and {INNER}, but "
            f"has {listed(list(tensors))}: rename them or choose another file"
        )
    if len(prefixes) > 1:
        raise UserError(
            f"{path} holds several networks, whose names begin with {listed([repr(prefix) for prefix in prefixes])}: "
            "save the one that is meant to a file of its own"
        )
    (prefix,) = prefixes
    if prefix:
        remarks = [*remarks, f"prefix {prefix} removed"]
    if others := [name for name in tensors if not name.startswith(prefix)]:
        remarks = [*remarks, f"without {listed(others)}"]
    taken = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    usable, converted = _in_float32(taken, path)
    if converted:
        remarks = [*remarks, f"converted from {converted} to float32"]
    return StateDict(usable, settings, ", ".join(remarks))


def _in_float32(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], str]:
    """Converts the weights, and returns with them the other types that they came in."""
    # A counter of batches that was converted with the weights may have become infinite; load_state_dict supplies it.
    kept = {name: t for name, t in tensors.items() if not (name.endswith(COUNTER) and t.is_floating_point())}
    weights = {name: tensor for name, tensor in kept.items() if not name.endswith(COUNTER)}
    types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in weights.items()}
    if unusable := [f"{name} ({kind})" for name, kind in types.items() if kind not in FLOATS]:
        raise UserError(
            f"{path} must hold tensors of {', '.join(FLOATS)}, but has {listed(unusable)}: choose a file that is not "
            "quantised"
        )
    require_finite(weights, path)
    others = " and ".join(sorted(set(types.values()) - {"float32"}))
    return kept | {name: tensor.float() for name, tensor in weights.items()}, others
