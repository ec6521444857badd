import pytest
from torch import nn

from lightning_modules import ResNetCBAM, model_size_bytes
from lightning_modules.network.model_size import fitting_changes, format_size


def test_counts_parameters_and_buffers():
    # 3 · 5 weights and 5 biases of 4 bytes; batch norm: weight, bias, mean and variance of 5, and an 8-byte counter
    assert model_size_bytes(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))) == 4 * (15 + 5) + 4 * 4 * 5 + 8


def test_prints_both_units():
    assert format_size(95_412_952) == "95.41 MB (90.99 MiB)"


def test_fitting_changes_fit_when_they_are_built():
    changes = fitting_changes(100, {"backbone": "resnet101", "dropout": 0.3}, 10**8)
    assert [flag for flag, _ in changes] == [
        "--model.backbone resnet50", "--model.backbone resnext50_32x4d", "--model.backbone resnet34",
        "--model.backbone resnet18",
    ]  # fmt: skip
    for flag, size in changes:
        assert model_size_bytes(ResNetCBAM(100, backbone=flag.split()[-1])) == size <= 10**8


@pytest.mark.parametrize(
    "change", ["--model.attention none", "--model.attention_placement stage", "--model.reduction_ratio 128"]
)
def test_offers_less_attention_where_that_is_enough(change):
    heavy = {"backbone": "resnet50", "attention_placement": "block", "reduction_ratio": 16}
    assert change in dict(fitting_changes(100, heavy, 10**8))
