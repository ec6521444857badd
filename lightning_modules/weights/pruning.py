"""What ``torch.nn.utils.prune`` makes of a state dict, undone."""

from collections.abc import Mapping

from torch import Tensor

ORIGINAL, MASK = "_orig", "_mask"


def without_masks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with each ``<name>_orig`` and ``<name>_mask`` multiplied to the ``<name>`` that is used."""
    pruned = [name.removesuffix(MASK) for name in state if name.endswith(MASK)]
    products = {name: state[name + ORIGINAL] * state[name + MASK] for name in pruned}
    parts = {name + suffix for name in pruned for suffix in (ORIGINAL, MASK)}
    return {name: tensor for name, tensor in state.items() if name not in parts} | products
