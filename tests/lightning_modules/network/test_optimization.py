import re

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from lightning_modules import ResNetCBAM
from lightning_modules.network.optimization import build_optimizer, parameter_groups

RATES = {"learning_rate": 0.01, "weight_decay": 0.5}


def test_one_step_equals_adamw_by_hand():
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build_optimizer([weight], learning_rate=0.1, weight_decay=0.5)
    (3 * weight).sum().backward()
    optimizer.step()
    # Decay first: 2 · (1 - 0.1 · 0.5); then the first step of Adam is the learning rate times the gradient's sign.
    assert weight.item() == pytest.approx(2.0 * 0.95 - 0.1 * 3 / (3 + 1e-8), rel=1e-12)


def names_of(network, groups):
    """The names in each group, by the group's name; every parameter is in exactly one."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {group["name"]: [names[id(parameter)] for parameter in group["params"]] for group in groups}
    assert len(found) == len(groups)
    assert sorted(name for group in found.values() for name in group) == sorted(names.values())
    return found


def select(network, pattern):
    """Names that match, in the network's order."""
    return [name for name, _ in network.named_parameters() if re.fullmatch(pattern, name)]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_with_the_defaults_there_is_one_group_as_torch_makes_it(backbone):
    network = ResNetCBAM(5, backbone=backbone)
    groups = build_optimizer(parameter_groups(network, **RATES), **RATES).state_dict()["param_groups"]
    assert groups == AdamW(network.parameters(), lr=0.01, weight_decay=0.5, fused=True).state_dict()["param_groups"]


@pytest.mark.parametrize("attention", ["cbam", "none"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_head_and_gates_learn_at_the_full_rate_and_the_trunk_at_its_share(backbone, attention):
    network = ResNetCBAM(5, backbone=backbone, attention=attention)
    groups = parameter_groups(network, trunk_learning_rate_ratio=0.1, **RATES)
    assert names_of(network, groups) == {
        "head": select(network, r"(fc|attention)\..*"),
        "trunk": select(network, r"(conv1|bn1|layer\d)\..*"),
    }
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 0.5), (0.01 * 0.1, 0.5)]


@pytest.mark.parametrize("placement", ["stage", "block", "branch"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_each_stage_learns_slower_and_norms_biases_and_gates_do_not_decay(backbone, placement):
    network = ResNetCBAM(5, backbone=backbone, attention_placement=placement)
    options = {"trunk_learning_rate_ratio": 0.5, "layer_decay": 0.8, "weight_decay_on": "matrices"}
    groups = parameter_groups(network, **options, **RATES)
    matrices = r"(.*\.)?(conv\d|downsample\.0)\.weight"
    norms = r"(.*\.)?(bn\d|downsample\.1)\.(weight|bias)"  # torchvision's convolutions have no bias
    expected = {"head": ["fc.weight"], "head, no decay": select(network, r"attention\..*|fc\.bias")}
    for stage in ("layer4", "layer3", "layer2", "layer1"):
        expected[stage] = select(network, rf"{stage}\.{matrices}")
        expected[f"{stage}, no decay"] = select(network, rf"{stage}\.{norms}")
    expected |= {"stem": ["conv1.weight"], "stem, no decay": ["bn1.weight", "bn1.bias"]}
    assert names_of(network, groups) == expected
    assert [group["name"] for group in groups] == list(expected)  # the head first
    rates = [0.01, *(0.01 * 0.5 * 0.8**distance for distance in (1, 2, 3, 4, 5))]
    assert [group["lr"] for group in groups[::2]] == pytest.approx(rates, rel=1e-12)
    assert [group["lr"] for group in groups[1::2]] == [group["lr"] for group in groups[::2]]
    assert [group["weight_decay"] for group in groups] == 6 * [0.5, 0.0]


def test_only_the_trunk_can_be_frozen():
    groups = parameter_groups(ResNetCBAM(5, backbone="resnet18"), freezes_trunk=True, **RATES)
    assert [(group["name"], "frozen" in group) for group in groups] == [("head", False), ("trunk", True)]
