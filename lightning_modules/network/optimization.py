"""The optimiser, AdamW, and its groups of parameters: who learns how fast, and who decays."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW

from lightning_modules.network.resnet_cbam import ATTENTION_PREFIX, HEAD_PREFIX, STAGES

WeightDecayOn = Literal["all", "matrices"]

# A part's place in the list is its distance from the top of the network.
PARTS = ("head", *reversed(STAGES), "stem")


def parameter_groups(
    network: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    trunk_learning_rate_ratio: float = 1.0,
    layer_decay: float = 1.0,
    weight_decay_on: WeightDecayOn = "all",
    freezes_trunk: bool = False,
) -> list[dict[str, Any]]:
    """Divides a ``ResNetCBAM``'s parameters into groups of AdamW, head first; into one if all are treated alike.

    Head and gates, the group "head", learn at ``learning_rate``; the trunk's part at a distance d from the top at that
    times ``trunk_learning_rate_ratio`` · ``layer_decay`` ** d, where d is 1 for layer4 and 5 for the stem. Without
    ``layer_decay`` the trunk is one group. Each group names its ``ratio`` to ``learning_rate``; one that can be frozen
    counts the steps of its schedule that it stays so as ``frozen``, which the schedule sets.

    Sources: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", arXiv 1801.06146, section
    3.2 (a rate for each layer; here the head is at distance 0, as in BEiT's program); He et al., "Bag of Tricks for
    Image Classification", arXiv 1812.01187, section 3.1 (no decay on biases and norms).

    Args:
        network: Network whose parameters are named as ``ResNetCBAM``'s.
        learning_rate: Learning rate of head and gates.
        weight_decay: Weight decay of AdamW.
        trunk_learning_rate_ratio: Ratio of the trunk's learning rate to the head's.
        layer_decay: Ratio of the learning rates of a part of the trunk and of the part above it.
        weight_decay_on: ``all``, or ``matrices`` to spare biases, norms and gates.
        freezes_trunk: Whether the trunk is frozen at first.
    """
    if (trunk_learning_rate_ratio, layer_decay, weight_decay_on, freezes_trunk) == (1, 1, "all", False):
        return [{"params": list(network.parameters())}]
    parts = PARTS if layer_decay != 1 else ("head", "trunk")
    members: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim > 1 and not name.startswith(ATTENTION_PREFIX)
        distance = min(_distance_from_top(name), len(parts) - 1)
        members[distance, weight_decay_on == "matrices" and not is_matrix].append(parameter)
    groups = []
    for (distance, is_spared), parameters in sorted(members.items(), key=lambda item: item[0]):
        ratio = trunk_learning_rate_ratio * layer_decay**distance if distance else 1.0
        groups.append(
            {
                "params": parameters,
                "name": parts[distance] + (", no decay" if is_spared else ""),
                "lr": learning_rate * ratio,
                "weight_decay": 0.0 if is_spared else weight_decay,
                "ratio": ratio,
                **({"frozen": 0} if freezes_trunk and distance else {}),
            }
        )
    return groups


def _distance_from_top(name: str) -> int:
    if name.startswith((HEAD_PREFIX, ATTENTION_PREFIX)):
        return 0
    part = name.partition(".")[0]
    return PARTS.index(part if part in STAGES else "stem")


def build_optimizer(
    parameters: Iterable[nn.Parameter] | list[dict[str, Any]],
    *,
    learning_rate: float,
    weight_decay: float,
    fused: bool = True,
) -> AdamW:
    """Builds AdamW over parameters or groups of them; by default, as in the reference recipe, weight decay is for all.

    With ``fused``, one kernel updates parameter and both moments, on the CPU and on CUDA.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
    """
    return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def describe_groups(groups: list[dict[str, Any]]) -> list[str]:
    """Returns a line for each group of an optimiser with a schedule: tensors, parameters, peak rate, weight decay."""
    widest = max(len(group["name"]) for group in groups)
    return [
        f"{group['name']:<{widest}}  {len(group['params']):>3} tensors  "
        f"{sum(parameter.numel() for parameter in group['params']):>11,} parameters  "
        f"learning rate {group['initial_lr']:<8.4g}  weight decay {group['weight_decay']:g}"
        for group in groups
    ]
