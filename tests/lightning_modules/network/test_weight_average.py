import math

import pytest
import torch
from torch import nn

from lightning_modules.network.weight_average import WeightAverage, decay_for

CPU = torch.device("cpu")


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def change(network):
    """Other weights, as a step leaves them; returns the state."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.copy_(torch.randn(tensor.shape)) if tensor.is_floating_point() else tensor.add_(1)
    return state(network)


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(states, others):
    return states.keys() == others.keys() and all(torch.equal(states[name], others[name]) for name in states)


def test_average_equals_the_closed_form(network):
    states = [state(network)]
    average = WeightAverage(network, CPU)
    for _ in range(12):
        states.append(change(network))
        average.update(0.5)
    # (1 + t) / (10 + t) is below 0.5 for t = 0 to 7, and equal to it at 8.
    decays = [1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5, 0.5]
    # Each state's share is what its own update gave it, times the decays of all later ones.
    shares = [math.prod(decays), *((1 - decay) * math.prod(decays[t + 1 :]) for t, decay in enumerate(decays))]
    assert sum(shares) == pytest.approx(1)
    for name, tensor in average.averaged.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor.item() == 12
        else:
            exact = sum(share * state[name].double() for share, state in zip(shares, states, strict=True))
            torch.testing.assert_close(tensor.double(), exact, rtol=1e-5, atol=1e-6)
    assert same(average.trained.state_dict(), states[-1])


def test_a_network_shows_either_in_the_same_tensors(network):
    average = WeightAverage(network, CPU)
    trained = change(network)
    average.update(0.9)
    averaged = state(average.averaged)
    tensors = [*network.parameters(), *network.buffers()]
    for shown, expected in ((True, averaged), (True, averaged), (False, trained), (False, trained)):
        average.show(shown)
        assert same(network.state_dict(), expected)
        assert same(average.averaged.state_dict(), averaged)
        assert same(average.trained.state_dict(), trained)
        assert all(a is b for a, b in zip(tensors, (*network.parameters(), *network.buffers()), strict=True))


def test_channels_last_is_kept(network):
    network.to(memory_format=torch.channels_last)
    average = WeightAverage(network, CPU)
    average.update(0.9)
    average.show(True)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("steps", "decay"), [(1, 0.0), (10, 0.0), (20, 0.5), (1_000_000, 0.9999)])
def test_decay_of_a_short_and_of_a_long_run(steps, decay):
    assert decay_for(steps) == decay


def test_weights_are_a_tenth_of_the_run_old():
    decay = decay_for(400)
    mean_age = sum(age * (1 - decay) * decay**age for age in range(10_000))
    assert mean_age + 1 == pytest.approx(40)  # counting the latest as one step old
