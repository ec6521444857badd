"""Packed convolutions compute what the network does, whatever the backbone, the batch and the precision."""

import pytest
import torch

from lightning_modules.network.inference import for_inference
from lightning_modules.network.packed_conv import PackedConv2d, pack_for_cpu
from tests.lightning_modules.network.test_inference import trained

NETWORKS = [
    {"backbone": "resnet18"},
    {"backbone": "resnet18", "attention_placement": "block"},
    {"backbone": "resnet18", "attention_placement": "branch"},
    {"backbone": "resnet50"},
    {"backbone": "resnet50", "attention": "none"},
    {"backbone": "resnext50_32x4d", "attention_gate": "identity"},
]


def packed(network, dtype):
    copy = for_inference(network, dtype)
    pack_for_cpu(copy)
    return copy


@pytest.mark.parametrize("options", NETWORKS, ids=lambda options: "-".join(options.values()))
@torch.inference_mode()
def test_every_batch_has_the_answers_of_the_network(options):
    network = trained(**options)
    fast = packed(network, torch.float32)
    assert isinstance(fast.conv1, PackedConv2d)
    for batch, size, layout in (
        (3, 64, torch.channels_last),
        (1, 64, torch.contiguous_format),
        (3, 49, torch.channels_last),
        (3, 32, torch.contiguous_format),  # 1×1 in the last stage
        (3, 64, torch.channels_last),  # as the first, after others
    ):
        images = torch.randn(batch, 3, size, size).contiguous(memory_format=layout)
        before = images.clone()
        expected = network.double()(images.double())
        torch.testing.assert_close(fast(images).double(), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(images, before)
        assert torch.equal(fast(images), fast(images))  # nothing is left over from a batch
        network.float()


@pytest.mark.parametrize("backbone", ["resnet50", "resnext50_32x4d"])
@torch.inference_mode()
def test_bfloat16_is_as_near_as_without_packing(backbone):
    network = trained(backbone=backbone)
    images = torch.randn(16, 3, 64, 64)
    expected = network(images).softmax(1)
    plain, fast = for_inference(network, torch.bfloat16), packed(network, torch.bfloat16)
    for run in (plain, fast):
        assert (run(images.bfloat16()).softmax(1) - expected).abs().max() < 0.01
    with torch.autocast("cpu", torch.bfloat16):  # as Lightning runs it
        assert (fast(images.bfloat16()).softmax(1) - expected).abs().max() < 0.01


def test_a_type_without_kernels_is_left_alone():
    network = packed(trained(backbone="resnet18"), torch.float64)
    assert isinstance(network.conv1, torch.nn.Conv2d)
