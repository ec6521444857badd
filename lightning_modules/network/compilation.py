"""Compilation of a network, or of its attention modules only, by torch.compile."""

from typing import Literal

from torch import nn

from lightning_modules.network.attention import CBAM

Compile = Literal["none", "gates", "full"]
GRAPHS = 64  # of one function, for all shapes and modes: enough for seven sizes of images


def compile_in_place(network: nn.Module, what: Compile) -> None:
    """Has the CBAM modules, or all of ``network``, compiled at the first call, in place: parameters keep their names.

    Compiles again for each new input shape, as a kernel for all shapes would be slower: batches are full, so there is
    one for each size of images in a run.
    """
    if what != "none":
        from torch._dynamo import config  # here, as it takes a second

        # At 8, torch's default, the gates of four stages in training and evaluation would leave none for a second size,
        # and would run uncompiled from there on.
        config.recompile_limit = max(config.recompile_limit, GRAPHS)
    for module in network.modules():
        if (what == "gates" and isinstance(module, CBAM)) or (what == "full" and module is network):
            module.compile(dynamic=False)
