import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_modules import ImageClassifier
from lightning_modules.network import matmul_conv
from lightning_modules.network.inference import for_inference
from lightning_modules.network.matmul_conv import MatmulConv2d, use_matmul_convs

SHAPES = [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 0)]  # kernel, stride, padding


@pytest.fixture
def products(monkeypatch):
    """Counts the products that are taken instead of convolutions, on maps of any size."""
    taken = []
    linear = F.linear
    monkeypatch.setattr(matmul_conv, "MOST_POSITIONS", 10**6)
    monkeypatch.setattr(matmul_conv, "WEIGHTS_PER_POSITION", 1e-6)
    monkeypatch.setattr(F, "linear", lambda *args: taken.append(1) or linear(*args))
    return taken


@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_the_convolution(kernel, stride, padding, bias, layout, products):
    plain = nn.Conv2d(6, 8, kernel, stride, padding, bias=bias)
    module = nn.Sequential(nn.Conv2d(6, 8, kernel, stride, padding, bias=bias))
    use_matmul_convs(module)
    module[0].load_state_dict(plain.state_dict())
    exact = torch.randint(-8, 9, (2, 6, 7, 6)).float().contiguous(memory_format=layout).requires_grad_()
    plain.weight.data, module[0].weight.data = ((plain.weight * 16).round() for _ in range(2))  # exact in bfloat16
    coarse = exact.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours = module(coarse)
    theirs = plain(exact)
    assert products == [1]
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.float(), theirs, atol=0.05, rtol=2**-7)
    grad = torch.randint(-2, 3, theirs.shape).float()
    for a, b in zip(
        torch.autograd.grad(ours, [coarse, module[0].weight], grad.bfloat16()),
        torch.autograd.grad(theirs, [exact, plain.weight], grad),
        strict=True,
    ):
        torch.testing.assert_close(a.float(), b, atol=0.05, rtol=2**-6)


def test_is_left_to_the_library_in_float32_and_on_large_maps(monkeypatch):
    convolved = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: convolved.append(x.shape) or x)
    conv = MatmulConv2d(512, 512, 3, padding=1)
    conv(torch.zeros(16, 512, 2, 2))
    conv(torch.zeros(16, 512, 7, 7, dtype=torch.bfloat16))  # 784 positions, more than 512 · 512 · 9 / 9216 = 256
    MatmulConv2d(4, 4, 3, groups=2)(torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16))
    assert len(convolved) == 3


def test_every_square_convolution_of_the_trunk_is_one():
    network = ImageClassifier(["x", "y"]).network
    convolutions = [m for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and "attention" not in name]
    assert len(convolutions) == 53
    assert all(type(convolution) is MatmulConv2d for convolution in convolutions)
    assert all(type(module.spatial_gate.conv) is nn.Conv2d for module in network.attention.values())
    folded = for_inference(network, torch.bfloat16)
    assert sum(type(module) is MatmulConv2d for module in folded.modules()) == 53
