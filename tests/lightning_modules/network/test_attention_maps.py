import pytest
import torch

from lightning_modules import ResNetCBAM
from lightning_modules.network.attention_maps import grad_cam, spatial_gates


def build(**options):
    torch.manual_seed(0)
    return ResNetCBAM(5, backbone="resnet18", **options).eval(), torch.randn(3, 3, 64, 64)


def stages(network, images):
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        before = getattr(network, stage)(x)
        x = network.attention[stage](before) if network.attention else before
        yield stage, before, x


def test_gates_are_the_factors_between_a_stage_and_its_output():
    network, images = build()
    logits, gates = spatial_gates(network, images)
    with torch.no_grad():
        assert torch.equal(logits, network(images))
        for stage, before, after in stages(network, images):
            channel = network.attention[stage].channel_gate(before)
            torch.testing.assert_close(before * channel * gates[stage][:, None], after)


@pytest.mark.parametrize("placement", ["block", "branch"])
def test_of_several_modules_in_a_stage_the_last_one_counts(placement):
    network, images = build(attention_placement=placement)
    with torch.no_grad():  # its gate is 1, whatever it sees
        network.attention["layer3"][1].spatial_gate.conv.weight.zero_()
        network.attention["layer3"][1].spatial_gate.conv.bias.fill_(1e3)
    _, gates = spatial_gates(network, images)
    assert list(gates) == ["layer1", "layer2", "layer3", "layer4"]
    assert (gates["layer3"] == 1).all()
    assert (gates["layer4"] < 1).all()


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "none"},
        {"attention_placement": "stage"},
        {"attention_placement": "block"},
        {"attention_placement": "branch"},
    ],
    ids=str,
)
def test_grad_cam_is_the_papers_formula(options):
    network, images = build(**options)
    targets = torch.tensor([0, 3, 3])
    kept = []
    with network.features.register_forward_hook(lambda module, inputs, output: kept.append(output)):
        logits = network(images)
    (features,) = kept
    torch.testing.assert_close(network.fc(features.mean((2, 3))), logits)  # they are what the head sees
    features = features.detach().requires_grad_()
    scores = network.fc(features.mean((2, 3)))
    (gradients,) = torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), features)
    weights = gradients.mean((2, 3), keepdim=True)
    expected = (weights * features).sum(1).relu()
    torch.testing.assert_close(grad_cam(network, images, targets), expected.detach())


def test_without_attention_there_are_no_gates():
    network, images = build(attention="none")
    assert spatial_gates(network, images)[1] == {}
