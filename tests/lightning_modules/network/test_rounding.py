"""Rounding against NumPy's, and what a network shows."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.network.rounding import RoundedWeights, rounded


def nearest(values, dtype):
    """The nearest values that the type holds, ties to even, from the definition of the formats."""
    if dtype == torch.float16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)  # bfloat16 is the upper half of a float32
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounds_to_the_nearest_value_and_is_idempotent(dtype):
    generator = np.random.default_rng(0)
    values = (generator.uniform(-1, 1, 10_000) * 10.0 ** generator.uniform(-9, 4.8, 10_000)).astype(np.float32)
    once = rounded(torch.from_numpy(values), dtype)
    np.testing.assert_array_equal(once.numpy(), nearest(values, dtype))
    assert torch.equal(rounded(once, dtype), once)


@pytest.mark.parametrize("trained", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_a_rounded_value_of_any_type_is_the_stored_one(trained, stored):
    values = torch.from_numpy(10.0 ** np.random.default_rng(0).uniform(-9, 4.8, 10_000)).to(trained)
    seen = rounded(values, stored)
    assert torch.equal(seen.to(stored).to(trained), seen)


def test_a_network_shows_either_and_loses_neither():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    network[1].running_var += 0.1
    network[1].num_batches_tracked += 5000  # which bfloat16 does not hold
    before = {name: x.clone() for name, x in network.state_dict().items()}
    expected = {name: x.bfloat16().float() if x.is_floating_point() else x for name, x in before.items()}
    parts = [*network.parameters(), *network.buffers()]
    weights = RoundedWeights(network, torch.bfloat16)
    with torch.inference_mode():
        weights.show(True)
        weights.show(True)
    assert all(torch.equal(x, expected[name]) for name, x in network.state_dict().items())
    assert all(torch.equal(x, before[name.removeprefix("p.")]) for name, x in weights.originals("p.").items())
    weights.show(False)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert all(x is y for x, y in zip([*network.parameters(), *network.buffers()], parts, strict=True))
    network(torch.ones(2, 3)).sum().backward()  # which tensors made for inference would refuse


@pytest.mark.parametrize(
    ("value", "dtype", "trained", "is_too_large"),
    [
        (65519.0, torch.float16, torch.float32, False),  # halfway to the first that is out of reach is 65520
        (65520.0, torch.float16, torch.float32, True),
        (65520.0, torch.bfloat16, torch.float32, False),
        (3.4e38, torch.bfloat16, torch.float32, True),
        (1e39, torch.bfloat16, torch.float64, True),
        (65504.0, torch.bfloat16, torch.float16, True),  # it would become 65536, which float16 has not
    ],
)
def test_values_too_large_are_named_and_stay(value, dtype, trained, is_too_large):
    network = nn.Linear(2, 1).to(trained)
    with torch.no_grad():
        network.bias.fill_(value)
    weights = RoundedWeights(network, dtype)
    weights.show(True)
    assert weights.too_large() == (["bias"] if is_too_large else [])
    assert network.bias.isfinite()
