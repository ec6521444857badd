"""State dicts of networks that ``torch.nn.utils.prune`` has pruned."""

from collections.abc import Mapping

from torch import Tensor

ORIGINAL, MASK = "_orig", "_mask"


def without_masks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replaces each ``<name>_orig`` and ``<name>_mask`` by their product ``<name>``, the tensor that is used.

    >>> without_masks({"weight_orig": Tensor([2, 3]), "weight_mask": Tensor([1, 0])})
    {'weight': tensor([2., 0.])}
    """
    masked = (name.removesuffix(MASK) for name in state if name.endswith(MASK))
    shapes = {name: tensor.shape for name, tensor in state.items()}
    pruned = [name for name in masked if shapes.get(name + ORIGINAL) == shapes[name + MASK]]
    products = {name: state[name + ORIGINAL] * state[name + MASK] for name in pruned}
    parts = {name + suffix for name in pruned for suffix in (ORIGINAL, MASK)}
    return {name: tensor for name, tensor in state.items() if name not in parts} | products
