import functools

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from lightning_modules.network.compilation import compile_in_place
from lightning_modules.network.resnet_cbam import ResNetCBAM


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at it
@pytest.mark.parametrize(("what", "graphs"), [("gates", 4), pytest.param("full", 1, marks=pytest.mark.slow)])
def test_each_size_of_images_is_compiled_once(what, graphs, monkeypatch):
    counter = CompileCounter()  # a backend that runs what it gets
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=counter))
    torch._dynamo.reset()
    network = ResNetCBAM(3, backbone="resnet18")
    compile_in_place(network, what)
    compiled = []
    for size in (32, 64, 96, 32, 64):  # which differ at every stage
        network.train()
        network(torch.randn(2, 3, size, size)).sum().backward()
        with torch.no_grad():
            network.eval()(torch.randn(2, 3, 64, 64))
        compiled.append(counter.frame_count)
    # One for each gate in training at each size, and one in evaluation; a dynamic shape would do with fewer.
    assert [count / graphs for count in compiled] == [2, 3, 4, 4, 4]
