import shutil

import pytest
import torch
import torch.nn.functional as F

from lightning_modules import CBAM


def restated_cbam(x, module):
    """The data-flow sketch of attention.py, written out with functions."""
    factor = 2.0 if module.channel_gate.gate == "identity" else 1.0
    pooled = x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])
    hidden = (pooled @ module.channel_gate.reduce.weight.T).clamp(min=0)
    y = x * (factor / (1 + torch.exp(-(hidden @ module.channel_gate.expand.weight.T))))[..., None, None]
    conv = module.spatial_gate.conv
    logits = F.conv2d(y.sum(1, keepdim=True) / y.shape[1], conv.weight, conv.bias, padding=conv.kernel_size[0] // 2)
    return y * (factor / (1 + torch.exp(-logits)))


@pytest.mark.parametrize("gate", ["sigmoid", "identity"])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_equals_the_formula(gate, kernel_size):
    module = CBAM(32, reduction_ratio=8, kernel_size=kernel_size, gate=gate).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 32, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(module(x), restated_cbam(x, module))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_the_formulas(layout):
    """By finite differences and by torch's own differentiation of the formula, in float64."""
    module = CBAM(12, reduction_ratio=3).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 12, 4, 3, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(module, x)
    inputs, weights = [x, *module.parameters()], torch.randn(2, 12, 4, 3, dtype=torch.float64)
    ours = torch.autograd.grad((module(x) * weights).sum(), inputs)
    formula = torch.autograd.grad((restated_cbam(x, module) * weights).sum(), inputs)
    for a, b in zip(ours, formula, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile makes C++ of it")
def test_compiled_in_place_it_computes_the_same():
    plain, compiled = CBAM(32, 8), CBAM(32, 8)
    compiled.load_state_dict(plain.state_dict())
    compiled.compile(dynamic=False)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 32, 6, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    for a, b in zip(
        *(torch.autograd.grad(m(x).square().sum(), [x, *m.parameters()]) for m in (plain, compiled)), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_of_large_values_does_not_overflow(dtype):
    x = torch.full((1, 8, 64, 64), 60.0, dtype=dtype)  # whose sum over positions is 245,760
    gate = CBAM(8, reduction_ratio=1).to(dtype).channel_gate
    torch.nn.init.ones_(gate.reduce.weight)
    torch.nn.init.constant_(gate.expand.weight, 1 / 8 / 480)
    # 8 channels of mean 60 are 480 in each of 8 hidden units, and their mean over 480 is 1.
    torch.testing.assert_close(gate(x).float(), torch.full((1, 8, 1, 1), 1.0).sigmoid(), atol=0.01, rtol=0)


def test_identity_gate_starts_as_no_change_to_the_last_bit():
    x = torch.randn(2, 256, 7, 7)
    assert torch.equal(CBAM(256, gate="identity")(x), x)


def test_sigmoid_gate_starts_near_a_quarter():
    x = torch.rand(2, 256, 7, 7)
    assert ((CBAM(256)(x) / x).mean() - 0.25).abs() < 0.1


def test_narrow_input_keeps_one_hidden_unit():
    assert CBAM(64, reduction_ratio=128).channel_gate.reduce.weight.shape == (1, 64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_size": 4}, "kernel size must be odd and positive, got 4"),
        ({"reduction_ratio": 0}, "reduction_ratio must be at least 1, got 0"),
        ({"gate": "tanh"}, "gate must be 'sigmoid' or 'identity', got 'tanh'"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        CBAM(32, **wrong)
