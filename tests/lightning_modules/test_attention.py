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
        ({"kernel_size": 4}, "expected an odd, positive kernel size, got 4"),
        ({"reduction_ratio": 0}, "expected a reduction_ratio of at least 1, got 0"),
        ({"gate": "tanh"}, "expected gate 'sigmoid' or 'identity', got 'tanh'"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        CBAM(32, **wrong)
