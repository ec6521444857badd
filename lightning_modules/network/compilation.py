"""Compilation of a network, or of its attention modules only, by torch.compile."""

from typing import Literal

from torch import nn

from lightning_modules.network.attention import CBAM

Compile = Literal["none", "gates", "full"]


def compile_in_place(network: nn.Module, what: Compile) -> None:
    """Has the CBAM modules, or all of ``network``, compiled at the first call, in place: parameters keep their names.

    Compiles again for each new input shape, as a kernel for all shapes would be slower: batches are full, so there is
    one for each size of images in a run.
    """
    for module in network.modules():
        if (what == "gates" and isinstance(module, CBAM)) or (what == "full" and module is network):
            module.compile(dynamic=False)
