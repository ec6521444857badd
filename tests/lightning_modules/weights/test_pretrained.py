import json
import pickle
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from datamodules.files.errors import UserError
from lightning_modules import ResNetCBAM
from lightning_modules.weights.pretrained import load_pretrained

pytestmark = pytest.mark.usefixtures("wide_resnet18")


@pytest.fixture(scope="module")
def imagenet_state():
    """What torchvision's file for a ResNet18 holds: 1000 classes, random values."""
    return torchvision.models.resnet18(num_classes=1000).state_dict()


@pytest.fixture
def network():
    return ResNetCBAM(12, backbone="resnet18")


def saved(state, folder, name="weights.pth", header=None):
    path = folder / name
    save_file(state, path, header) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


def names(number):
    return [f"class {i}" for i in range(number)]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("placement", ["stage", "block", "branch"])
def test_torchvision_shaped_file_loads_into_every_placement(placement, suffix, tmp_path):
    state = torchvision.models.resnet50(num_classes=1000).state_dict()
    network = ResNetCBAM(100, attention_placement=placement)
    head = network.fc.weight.clone()
    report = load_pretrained(network, saved(state, tmp_path, "w" + suffix), "resnet50", names(100))
    trunk = {name: value for name, value in state.items() if not name.startswith("fc.")}
    assert all(torch.equal(network.state_dict()[name], value) for name, value in trunk.items())
    assert torch.equal(network.fc.weight, head)
    assert report.startswith(f"weights: {len(trunk)} tensors loaded from")
    assert "its head of 1000 classes is left out" in report
    assert "attention.layer1" in report


@pytest.mark.parametrize("num_classes", [12, 1000])  # a thousand of the user's own are not ImageNet's
def test_name_loads_from_torchvisions_cache_without_its_head(num_classes, imagenet_state, tmp_path, monkeypatch):
    network = ResNetCBAM(num_classes, backbone="resnet18")
    head = network.fc.weight.clone()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    saved(imagenet_state, cache, torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    report = load_pretrained(network, "IMAGENET1K_V1", "resnet18", names(num_classes))
    assert torch.equal(network.conv1.weight, imagenet_state["conv1.weight"])
    assert torch.equal(network.fc.weight, head)
    assert "its head of 1000 classes is left out; randomly initialised: " in report


def test_offline_and_not_cached_names_three_ways_out(network, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    before = network.conv1.weight.clone()
    with pytest.raises(UserError, match=r"connect to the network, put the file at .*\.pth, or choose --model.weights"):
        load_pretrained(network, "IMAGENET1K_V1", "resnet18", names(12))
    assert torch.equal(network.conv1.weight, before)


OF_12 = "its head of 12 classes"
LEFT_OUT = f"{OF_12} is left out, as they are different or in another order"
UNNAMED = f"{OF_12} is used, though the file does not name them"


@pytest.mark.parametrize(
    ("header", "head_is_taken", "remark"),
    [
        ({"classes": json.dumps(names(12))}, True, ""),
        ({"classes": json.dumps([*names(11), "another"])}, False, LEFT_OUT),
        ({"classes": json.dumps(names(12)[::-1])}, False, LEFT_OUT),
        ({"classes": json.dumps(names(10))}, False, LEFT_OUT),  # of an altered file
        (None, True, UNNAMED),
        ({"classes": "twelve"}, True, UNNAMED),
        ({"classes": "[" * 100_000}, True, UNNAMED),
    ],
)
def test_a_head_is_taken_for_its_classes_alone(header, head_is_taken, remark, network, tmp_path):
    other = ResNetCBAM(12, backbone="resnet18")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = saved(other.state_dict(), tmp_path, "m.safetensors", header)
    report = load_pretrained(network, path, "resnet18", names(12))
    for name, value in network.state_dict().items():
        source = other.state_dict() if head_is_taken or not name.startswith("fc.") else before
        assert torch.equal(value, source[name])
    taken = len(before) - 2 * (not head_is_taken)
    new = "" if head_is_taken else "; randomly initialised: fc.bias, fc.weight"
    assert report.startswith(f"weights: {taken} tensors loaded from {path}{'; ' if remark else ''}{remark}")
    assert report.endswith(new)


@pytest.mark.parametrize("width", [10, 37])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_head_of_another_width_is_left_out(name, width, network, tmp_path):
    other = ResNetCBAM(width, backbone="resnet18")
    head = network.fc.weight.clone()
    path = saved(other.state_dict(), tmp_path, name, {"classes": json.dumps(names(width))})
    report = load_pretrained(network, path, "resnet18", names(12))
    assert f"its head of {width} classes is left out; randomly initialised: fc.bias, fc.weight" in report
    assert torch.equal(network.layer4[0].conv1.weight, other.layer4[0].conv1.weight)
    assert torch.equal(network.fc.weight, head)


def test_file_without_batch_norm_counters_loads(network, imagenet_state, tmp_path):
    old = {name: value for name, value in imagenet_state.items() if "num_batches" not in name}
    load_pretrained(network, saved(old, tmp_path), "resnet18", names(12))
    assert torch.equal(network.bn1.running_var, imagenet_state["bn1.running_var"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer3.1.conv2.weight"), "missing layer3.1.conv2.weight"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), "unexpected extra.weight"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}), r"another shape conv1.weight \(64, 1, 7, 7\)"),
        (lambda s: s.update({"fc.weight": torch.zeros(12, 100)}), r"fc.weight \(12, 100\) for \(12, 512\)"),
        (lambda s: s.pop("fc.weight"), "missing fc.weight"),
        (
            lambda s: s.update({"bn1.running_var": torch.full([64], torch.inf)}),
            r"w.*\.pth has values that are NaN or inf",
        ),
        (lambda s: s.update({1: torch.zeros(1)}), "is not a state dict of tensors by name"),
        (lambda s: s.update({"attention.layer1.spatial_gate.conv.bias": torch.zeros(1)}), "missing attention.layer1"),
    ],
)
def test_any_other_tensor_is_an_error_that_names_it(network, imagenet_state, tmp_path, change, message):
    state = dict(imagenet_state)
    change(state)
    with pytest.raises(UserError, match=message):
        load_pretrained(network, saved(state, tmp_path), "resnet18", names(12))


STATED = {"attention": "cbam", "attention_placement": "block", "attention_gate": "sigmoid", "reduction_ratio": 64,
          "spatial_kernel_size": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "theirs", "named"),
    [
        ({}, {"backbone": "resnet34"}, "backbone resnet34 instead of resnet18"),
        ({"attention": "none"}, {}, "attention cbam instead of none"),
        ({"attention_gate": "identity"}, {}, "attention_gate sigmoid instead of identity"),  # of the same shapes
        ({"attention_placement": "branch"}, {}, "attention_placement block instead of branch"),  # here too
        (
            {"spatial_kernel_size": 7, "reduction_ratio": 16, "attention_placement": "stage"},
            {"backbone": "resnet50"},
            "backbone resnet50 instead of resnet18, attention_placement block instead of stage, reduction_ratio 64 "
            "instead of 16, spatial_kernel_size 3 instead of 7",
        ),
    ],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.ckpt"])
def test_weights_of_another_network_are_refused_by_the_options_that_differ(ours, theirs, named, name, tmp_path):
    stated = {"backbone": "resnet18", **STATED}
    state = ResNetCBAM(12, **{**stated, **theirs}).state_dict()
    if name.endswith("ckpt"):
        torch.save({"state_dict": state, "hyper_parameters": {**stated, **theirs}}, tmp_path / name)
    else:
        save_file(state, tmp_path / name, {"architecture": json.dumps({**stated, **theirs})})
    options = {**stated, **ours}
    with pytest.raises(UserError) as error:
        load_pretrained(ResNetCBAM(12, **options), str(tmp_path / name), "resnet18", names(12), options)
    assert f"is of another network ({named}): choose the --model options that it was made with" in str(error.value)


def test_attention_that_a_file_lacks_starts_at_random(tmp_path):
    options = {"backbone": "resnet18", **STATED}
    header = {"architecture": json.dumps({**options, "attention": "none", "attention_gate": "identity"})}
    path = saved(ResNetCBAM(12, backbone="resnet18", attention="none").state_dict(), tmp_path, "w.safetensors", header)
    assert "attention.layer1" in load_pretrained(ResNetCBAM(12, **options), path, "resnet18", names(12), options)


def test_code_in_a_file_is_not_run(network, tmp_path):
    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self):
            return canary.touch, ()

    path = tmp_path / "attack.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Attack()}))
    torch.save({"conv1.weight": Attack()}, tmp_path / "zip.pth")
    for name in (path, tmp_path / "zip.pth"):
        with pytest.raises(UserError, match="tensors and plain values only"):
            load_pretrained(network, str(name), "resnet18", names(12))
    assert not canary.exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("missing.pth", "there is no file at missing.pth"),
        ("IMAGENET1K_V2", "--model.weights must be one of IMAGENET1K_V1 for resnet18"),
        ("weights.onnx", "--model.weights must be one of"),
    ],
)
def test_refuses(network, weights, message):
    with pytest.raises(UserError, match=message):
        load_pretrained(network, weights, "resnet18", names(12))
