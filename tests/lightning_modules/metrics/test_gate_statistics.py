import numpy as np
import pytest
import torch

from lightning_modules import ResNetCBAM
from lightning_modules.metrics.gate_statistics import GateStatistics, Moments

pytestmark = pytest.mark.usefixtures("wide_resnet18")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNetCBAM(5, backbone="resnet18", reduction_ratio=16).eval()


@pytest.mark.parametrize("placement", ["stage", "block"])
def test_statistics_are_those_of_all_factors_together(placement):
    torch.manual_seed(0)
    network = ResNetCBAM(5, backbone="resnet18", reduction_ratio=16, attention_placement=placement).eval()
    images = torch.randn(6, 3, 32, 32)
    cbam = network.attention["layer2"] if placement == "stage" else network.attention["layer2"][1]
    factors = {}
    handles = [
        part.register_forward_hook(lambda m, i, output, kind=kind: factors.update({kind: output.flatten(1).numpy()}))
        for kind, part in {"channel": cbam.channel_gate, "spatial": cbam.spatial_gate}.items()
    ]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()

    statistics = GateStatistics(network)
    with torch.no_grad():
        # the second half with a blank, which does not count
        statistics.real = torch.tensor([True] * 3)
        network(images[:3])
        statistics.real = torch.tensor([True, False, True, True])
        network(torch.cat([images[3:4], torch.full((1, 3, 32, 32), 9.0), images[4:]]))
    numbers = statistics.finish()
    name = "layer2" if placement == "stage" else "layer2.1"
    for kind, places in {"channel": "channels", "spatial": "positions"}.items():
        values = factors[kind].astype(np.float64)
        assert numbers[f"{name}/{kind}_mean"] == pytest.approx(values.mean(), abs=1e-5)
        assert numbers[f"{name}/{kind}_std_over_images"] == pytest.approx(values.std(0).mean(), rel=1e-3)
        assert numbers[f"{name}/{kind}_std_over_{places}"] == pytest.approx(values.std(1).mean(), rel=1e-3)


def test_processes_add_up():
    values = torch.randn(7, 5) - torch.tensor([0.0, 0.0, 0.0, 9.0, 9.0])
    ours, theirs = Moments(distributed_available_fn=lambda: True), Moments()
    ours.update(values[:2])
    theirs.update(values[2:])
    states = iter([getattr(theirs, name) for name in theirs._reductions])
    ours.dist_sync_fn = lambda state, group: [state, next(states)]
    x = values.numpy().astype(np.float64)
    expected = {"mean": x.mean(), "std_over_images": x.std(0).mean(), "std_over_places": x.std(1).mean(), "dead": 0.4}
    assert ours.compute() == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore:std")  # of no image, where a process has blanks only
def test_nothing_has_no_statistics():
    moments = Moments()
    moments.update(torch.empty(0, 5))
    assert moments.compute() == {}


def test_a_hidden_unit_that_nothing_makes_active_is_dead(network):
    gate = network.attention["layer1"].channel_gate  # 4 hidden units, of features that are never negative
    with torch.no_grad():
        gate.reduce.weight[:3] = -gate.reduce.weight[:3].abs()
        gate.reduce.weight[3] = gate.reduce.weight[3].abs()
    statistics = GateStatistics(network)
    with torch.no_grad():
        network(torch.randn(2, 3, 32, 32))
    assert statistics.finish()["layer1/dead_hidden"] == 0.75


def test_nothing_is_left_behind(network):
    statistics = GateStatistics(network)
    with torch.no_grad():
        network(torch.randn(1, 3, 32, 32))
    statistics.finish()
    assert not any(module._forward_hooks for module in network.modules())
