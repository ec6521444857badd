import pytest
import torch
from torch import nn

from lightning_modules import ResNetCBAM
from lightning_modules.network.inference import for_inference


def trained(**options):
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = ResNetCBAM(10, **options)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return network.eval()


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("placement", ["stage", "block", "branch"])
def test_folding_computes_the_same_function(backbone, placement):
    network = trained(backbone=backbone, attention_placement=placement).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    folded = for_inference(network, torch.float64)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_bfloat16_is_near_float32():
    """Rounding to 8 bits, 53 times in a row: probabilities within a hundredth, and no ties for want of digits."""
    network = trained()
    images = torch.randn(16, 3, 64, 64)
    with torch.no_grad():
        expected = network(images).softmax(1)
        logits = for_inference(network, torch.bfloat16)(images.bfloat16())
    assert logits.dtype == torch.float32
    assert (logits.softmax(1) - expected).abs().max() < 0.01
    assert len(logits.unique()) == logits.numel()
