"""An exponential moving average of a network's weights, and which of the two a network shows."""

import copy

import torch
from torch import nn

MAX_DECAY = 0.9999  # of the decay that is chosen by a run's length


def decay_for(steps: int) -> float:
    """Returns the decay with which an average reaches back a tenth of a run of this many optimiser steps.

    The weights of k steps ago count (1 - d) · d^k, so their mean age is about 1 / (1 - d) steps. Such shares of a run
    do well: 7 to 13 % in Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv
    2312.02696, and 4 % in torchvision's recipe for ResNet50. The growing decay of ``WeightAverage``, with which
    the mean age is a tenth of the steps so far, is the smaller one until the run's last tenth.

    >>> decay_for(5_000), decay_for(10_000_000)
    (0.998, 0.9999)
    """
    return min(max(0.0, 1 - 10 / steps), MAX_DECAY)


class WeightAverage:
    """An exponential moving average of the parameters and buffers of a network, batch-norm statistics among them.

    With w the weights after update t = 0, 1, …, the average becomes d · average + (1 - d) · w, where
    d = min(decay, (1 + t) / (10 + t)) grows, so that the initial weights are soon forgotten, as in TensorFlow's
    average. Integer buffers are copied.

    The network shows either the weights that are trained or the average. Its tensors then exchange their storage with
    those of a copy, and so remain the ones that an optimiser, DDP, hooks and compiled code hold.

    Args:
        network: The network to average, whose current weights are the first average.
        device: Device of the average, which that of the network must be by the time of the first update.

    Attributes:
        updates: Number of updates so far.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.updates = 0
        self._network = network
        self._hidden = copy.deepcopy(network).requires_grad_(False).to(device)
        self._is_shown = False

    @property
    def trained(self) -> nn.Module:
        """The module whose tensors are the trained weights at the moment."""
        return self._hidden if self._is_shown else self._network

    @property
    def averaged(self) -> nn.Module:
        """The module whose tensors are the average at the moment."""
        return self._network if self._is_shown else self._hidden

    def show(self, average: bool) -> None:
        """Has the network show the average, or else the trained weights; does nothing where it does already."""
        if average == self._is_shown:
            return
        for shown, hidden in zip(_tensors(self._network), _tensors(self._hidden), strict=True):
            shown.data, hidden.data = hidden.data, shown.data
        self._is_shown = average

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Moves the average towards the trained weights, after a step of the optimiser."""
        decay = min(decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        pairs = list(zip(_tensors(self.averaged), _tensors(self.trained), strict=True))
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        whole = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_(*_columns(real), 1 - decay)
        if whole:
            torch._foreach_copy_(*_columns(whole))


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _columns(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
