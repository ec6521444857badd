"""Which parts of a network torch.compile makes kernels of."""

from typing import Literal

from torch import nn

from lightning_modules.network.attention import CBAM

Compile = Literal["none", "gates", "full"]


def compile_in_place(network: nn.Module, what: Compile) -> None:
    """Compiles the CBAM modules or all of ``network`` at its first call; parameters keep their names.

    For inputs of one shape: each further shape is compiled anew.
    """
    for module in network.modules():
        if (what == "gates" and isinstance(module, CBAM)) or (what == "full" and module is network):
            module.compile(dynamic=False)
