import pytest
import torch
import torchvision
from torch import nn

from lightning_modules import ResNetCBAM, model_size_bytes
from tests.lightning_modules.network.test_attention import restated_cbam

PLACEMENTS = ["stage", "block", "branch"]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def plain_resnet(backbone, network):
    """torchvision's own network with the trunk and head of ``network``."""
    plain = torchvision.models.get_model(backbone, num_classes=network.fc.out_features)
    state = network.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain


def test_sizes_of_the_reference_network():
    # ResNet50 has 25,557,032 parameters with ImageNet's head; 100 classes instead of 1000 save 900 · (2048 + 1).
    plain = 25_557_032 - 900 * 2049
    # Channel gate: two layers of C · C/128; spatial gate: 3 · 3 weights and a bias.
    module = {channels: 2 * channels * (channels // 128) + 10 for channels in (256, 512, 1024, 2048)}
    stage = plain + sum(module.values())
    block = plain + 3 * module[256] + 4 * module[512] + 6 * module[1024] + 3 * module[2048]
    # Buffers: mean and variance of each of 26,560 batch-norm channels, and a 64-bit counter of each of 53 layers.
    buffers = 2 * 26_560 * 4 + 53 * 8
    expected = {"default": (23_800_012, 95_412_952), "none": (23_712_932, 95_064_632), "block": (block, None)}
    assert (plain, stage) == (expected["none"][0], expected["default"][0])
    for network, parameters in (
        (ResNetCBAM(100), stage),
        (ResNetCBAM(100, attention="none"), plain),
        (ResNetCBAM(100, attention_placement="block"), block),
        (ResNetCBAM(100, attention_placement="branch"), block),
    ):
        assert count(network) == parameters
        assert model_size_bytes(network) == 4 * parameters + buffers
    assert 4 * stage + buffers == expected["default"][1]
    assert 4 * plain + buffers == expected["none"][1]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("gate", ["sigmoid", "identity"])
def test_logits_equal_torchvisions_network_with_hooks(backbone, placement, gate):
    torch.manual_seed(1)  # gates multiply: after 16 of them, some draws have amplified rounding a million times
    network = ResNetCBAM(
        7, backbone=backbone, attention_placement=placement, attention_gate=gate, reduction_ratio=16
    ).double()
    for parameter in network.attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    plain = plain_resnet(backbone, network).double()
    for stage, gates in network.attention.items():
        blocks = list(getattr(plain, stage))
        last_norms = [block.bn3 if hasattr(block, "bn3") else block.bn2 for block in blocks]
        targets = {"stage": [getattr(plain, stage)], "block": blocks, "branch": last_norms}[placement]
        gates = [gates] if placement == "stage" else gates
        for target, cbam in zip(targets, gates, strict=True):
            target.register_forward_hook(lambda _, __, output, cbam=cbam: restated_cbam(output, cbam))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(network.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("attention", [*PLACEMENTS, "none"])
def test_identity_gates_leave_the_plain_resnet_to_the_last_bit(attention):
    options = {"attention": "none"} if attention == "none" else {"attention_placement": attention}
    network = ResNetCBAM(100, attention_gate="identity", **options)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(network.eval()(images), plain_resnet("resnet50", network).eval()(images))


def test_dropout_acts_before_the_head_in_training_only():
    network = ResNetCBAM(3, backbone="resnet18", dropout=1.0)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.train()(images), network.fc.bias.expand(2, 3))
    assert not torch.equal(network.eval()(images), network.fc.bias.expand(2, 3))


def blocks_and_inputs(network):
    """The residual blocks, and a list that a forward pass fills with the input of each and the output of the last."""
    blocks = [block for stage in range(1, 5) for block in getattr(network, f"layer{stage}")]
    inputs = []
    for module in (*(block.conv1 for block in blocks), network.features):
        module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    return blocks, inputs


@pytest.mark.parametrize("attention", [*PLACEMENTS, "none"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_each_branch_is_dropped_for_some_images_and_scaled_up_for_the_others(attention, backbone):
    """Stochastic depth as in the paper: block l of L with probability l / L times the last one's."""
    torch.manual_seed(0)
    options = {"attention": "none"} if attention == "none" else {"attention_placement": attention}
    network = ResNetCBAM(3, backbone=backbone, attention_gate="identity", drop_path=0.5, **options).double().train()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eval()  # or images would depend on each other
    blocks, inputs = blocks_and_inputs(network)
    branches = []
    for block in blocks:
        (block.bn3 if backbone == "resnet50" else block.bn2).register_forward_hook(
            lambda _, __, output: branches.append(output.clone())
        )
    with torch.no_grad():
        network(torch.randn(100, 3, 16, 16, dtype=torch.float64))
    for number, (block, x, branch, output) in enumerate(zip(blocks, inputs, branches, inputs[1:], strict=False), 1):
        rate = 0.5 * number / len(blocks)
        shortcut = block.downsample(x) if block.downsample else x
        kept = torch.relu(shortcut + branch / (1 - rate)).isclose(output).flatten(1).all(1)
        dropped = torch.relu(shortcut).isclose(output).flatten(1).all(1)
        assert torch.equal(kept, ~dropped)
        assert abs(dropped.float().mean() - rate) < 5 * (rate * (1 - rate) / 100) ** 0.5  # standard deviations
    assert len(inputs) == len(blocks) + 1


@pytest.mark.parametrize("attention", [*PLACEMENTS, "none"])
def test_evaluation_drops_no_branch(attention):
    options = {"attention": "none"} if attention == "none" else {"attention_placement": attention}
    network = ResNetCBAM(3, backbone="resnet18", drop_path=0.9, **options)
    plain = ResNetCBAM(3, backbone="resnet18", **options)
    plain.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("attention", [*PLACEMENTS, "none"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_with_branches_at_zero_each_block_begins_as_its_shortcut_and_they_learn(backbone, attention):
    options = {"attention": "none"} if attention == "none" else {"attention_placement": attention}
    network = ResNetCBAM(3, backbone=backbone, attention_gate="identity", zero_init_residual=True, **options).train()
    blocks, inputs = blocks_and_inputs(network)
    network(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    for block, x, output in zip(blocks, inputs, inputs[1:], strict=False):
        shortcut = block.downsample(x) if block.downsample else x
        assert torch.equal(output, shortcut.relu())
        assert (block.bn3 if backbone == "resnet50" else block.bn2).weight.grad.count_nonzero()
    assert len(inputs) == len(blocks) + 1


@pytest.mark.parametrize("drop_path", [-0.1, 1.0, float("nan")])
def test_refuses_a_probability_out_of_range(drop_path):
    with pytest.raises(ValueError, match=f"drop_path must be at least 0 and below 1, got {drop_path}"):
        ResNetCBAM(3, drop_path=drop_path)


@pytest.mark.parametrize("option", ["backbone", "attention", "attention_placement", "attention_gate"])
def test_refuses_an_unknown_choice(option):
    with pytest.raises(ValueError, match="got 'other'"):
        ResNetCBAM(3, **{option: "other"})


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_activation_checkpointing_changes_nothing_but_memory(placement, drop_path):
    """Gradients, and batch norm's statistics after a step, to the last bit; the same branches are dropped again."""
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = ResNetCBAM(5, backbone="resnet18", attention_placement=placement, drop_path=drop_path).train()
        network.activation_checkpointing = checkpointing
        network(torch.randn(4, 3, 32, 32)).square().sum().backward()
        results.append({**network.state_dict(), **{name: p.grad for name, p in network.named_parameters()}})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_logits_are_float32_in_bfloat16_training():
    with torch.autocast("cpu", torch.bfloat16):
        assert ResNetCBAM(5, backbone="resnet18")(torch.randn(2, 3, 32, 32)).dtype == torch.float32
