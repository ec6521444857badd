"""Rounding of a network's weights to 16 bits, and whether a network shows them so."""

from typing import Literal

import torch
from torch import Tensor, nn

StoredPrecision = Literal["fp32", "fp16", "bf16"]
# What weights are stored as; None is as they are trained.
STORED_TYPES: dict[str, torch.dtype | None] = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


def as_stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Returns the tensor as a file holds it: counters, and everything where ``dtype`` is None, as they are.

    >>> as_stored(torch.tensor([0.1]), torch.bfloat16), as_stored(torch.tensor([7]), torch.bfloat16)
    (tensor([0.1001], dtype=torch.bfloat16), tensor([7]))
    """
    return tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the nearest values that ``dtype`` holds, in the tensor's own type; those too large for it stay.

    >>> rounded(torch.tensor([0.1, 7e4]), torch.float16).tolist()
    [0.0999755859375, 70000.0]
    """
    nearest = as_stored(tensor, dtype).to(tensor.dtype)
    return torch.where(nearest.isinf(), tensor, nearest)


class RoundedWeights:
    """The floating-point tensors of a network's state dict, batch-norm statistics among them, rounded for a while.

    The network shows either them or the originals. Its tensors then point to other storage, and so remain the ones that
    an optimiser, DDP, hooks and compiled code hold.

    Args:
        network: Network whose tensors are rounded as they are at the time.
        dtype: Type that they are rounded to, which keeps fewer digits than the network's.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._network = network
        self._originals: dict[str, tuple[Tensor, Tensor]] = {}  # while rounded: each tensor, and its former values

    @torch.inference_mode(False)
    @torch.no_grad()
    def show(self, are_rounded: bool) -> None:
        """Has the network show the rounded weights, or else the originals; does nothing where it does already."""
        if are_rounded == bool(self._originals):
            return
        if are_rounded:
            state = self._network.state_dict(keep_vars=True)
            originals = {name: (x, x.data) for name, x in state.items() if x.is_floating_point()}
            new = {name: rounded(data, self.dtype) for name, (_, data) in originals.items()}
            self._originals = originals  # before the first is replaced, so that an interruption loses none
            for name, (tensor, _) in originals.items():
                tensor.data = new[name]
        else:
            for tensor, data in self._originals.values():
                tensor.data = data
            self._originals = {}

    def originals(self, prefix: str = "") -> dict[str, Tensor]:
        """Returns the network's state dict with the weights before they were rounded, whatever it shows."""
        state = self._network.state_dict(prefix=prefix)
        return state | {prefix + name: data for name, (_, data) in self._originals.items()}

    def too_large(self) -> list[str]:
        """Returns the names of the tensors, now that they are rounded, with a value that the type cannot hold."""
        state = self._network.state_dict()
        differ = [(as_stored(x, self.dtype).to(x.dtype) != x).any() for x in state.values()]
        answers = torch.stack(differ).tolist()  # together: a GPU is waited for once
        return [name for name, is_too_large in zip(state, answers, strict=True) if is_too_large]
