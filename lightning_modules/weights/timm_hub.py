"""timm's ResNets, from its repositories on the Hugging Face hub."""

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from datamodules.files.errors import UserError
from datamodules.images.transforms import MEAN, STD
from lightning_modules.network.resnet_cbam import Backbone
from lightning_modules.weights.state_dicts import StateDict, read_state_dict

TIMM_PREFIX = "timm/"
EXAMPLE, PAGE = "timm/resnet50.a1_in1k", "https://huggingface.co/timm"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"


def timm_state_dict(weights: str, backbone: Backbone) -> StateDict:
    """Reads ``timm/<architecture>.<tag>`` from the hub's cache on this machine, or downloads it there.

    timm names the tensors of its plain ResNets, ResNeXts and wide ResNets as torchvision does, and builds them alike.

    Raises:
        UserError: The name is not of ``backbone``, the file cannot be had, or its images were normalised otherwise.
    """
    _require_same_architecture(weights, backbone)
    try:
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
    except ImportError as error:
        raise UserError(
            f"--model.weights {weights} needs huggingface_hub: install it with pip install huggingface_hub"
        ) from error
    try:
        # Without a look at the cache first, the hub's client tries for half a minute where there is no network.
        cached = try_to_load_from_cache(weights, WEIGHTS_FILE)
        find = try_to_load_from_cache if isinstance(cached, str) else hf_hub_download
        with _without_retries_in_the_log():
            remark = _require_same_input(weights, find(weights, CONFIG_FILE))
            path = str(find(weights, WEIGHTS_FILE))
    except UserError:
        raise
    except Exception as error:  # the client's errors and those of its HTTP library have no common type
        raise UserError(
            f"cannot download {weights} ({type(error).__name__}: {str(error).partition('. ')[0].strip()}): check the "
            f"name at {PAGE}, connect to the network, or choose --model.weights FILE or none"
        ) from error
    state = read_state_dict(Path(path))
    return state._replace(remark=", ".join(filter(None, (state.remark, remark))))


@contextlib.contextmanager
def _without_retries_in_the_log() -> Iterator[None]:
    """Keeps the hub's client from logging each attempt, as the last of them raises what is said to the user."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _require_same_architecture(weights: str, backbone: Backbone) -> None:
    architecture, _, tag = weights.removeprefix(TIMM_PREFIX).partition(".")
    if architecture not in get_args(Backbone):
        raise UserError(
            f"--model.weights {weights} is not one of timm's plain ResNets, which have the names of "
            f"{', '.join(get_args(Backbone))} and a tag: choose one of them, such as {EXAMPLE}"
        )
    if architecture != backbone:
        raise UserError(
            f"--model.weights {weights} is of {architecture}, but --model.backbone is {backbone}: choose the same for "
            "both"
        )
    if not tag:
        raise UserError(
            f"--model.weights {weights} lacks the tag that says how it was trained, as in {EXAMPLE}: choose one of the "
            f"names at {PAGE}"
        )


def _require_same_input(weights: str, path: object) -> str:
    """Raises ``UserError`` if the images were normalised otherwise than here, and remarks if that is not known."""
    try:
        config = json.loads(Path(str(path)).read_text())["pretrained_cfg"]
        channels, mean, std = config["input_size"][0], tuple(config["mean"]), tuple(config["std"])
    except (OSError, ValueError, LookupError, TypeError):  # a download by timm itself leaves no such file
        return f"without a {CONFIG_FILE} that tells how its images were normalised"
    if (channels, mean, std) != (len(MEAN), MEAN, STD):
        raise UserError(
            f"--model.weights {weights} was trained on images of {channels} channels with mean {mean} and standard "
            f"deviation {std}, and here they have {MEAN} and {STD}: choose other weights"
        )
    return ""
