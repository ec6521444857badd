"""Weights files as others save them: each loads to the last bit or is refused, and the line says what was taken."""

from argparse import Namespace

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from datamodules.files.errors import UserError
from lightning_modules import ImageClassifier, ResNetCBAM
from lightning_modules.trained_model import read_trained_model
from lightning_modules.weights.pretrained import load_pretrained
from lightning_modules.weights.state_dicts import read_state_dict
from lightning_modules.weights.weights_file import load_safetensors

NAMES = [f"class {i}" for i in range(12)]


@pytest.fixture(scope="module")
def wide_state():
    return torchvision.models.resnet18(num_classes=1000).state_dict()


@pytest.fixture
def state(wide_state, wide_resnet18):
    """Of a plain ResNet18: 20 tensors of convolutions, 20 · 5 of batch norm, 2 of the head."""
    return dict(wide_state)


def load(path):
    network = ResNetCBAM(12, backbone="resnet18")
    return network, load_pretrained(network, str(path), "resnet18", NAMES)


def under(prefix):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def other(state):
    return {name: tensor + 1 for name, tensor in state.items()}


def torchvisions(state):
    """A checkpoint of torchvision's reference script, whose average comes from ``AveragedModel``."""
    ema = {"n_averaged": torch.tensor(5), **under("module.")(state)}
    return {"model": other(state), "model_ema": ema, "epoch": 3, "args": Namespace(lr=0.1, sizes=(224, 176))}


HEAD = "; its head of 1000 classes is left out; randomly initialised: "
PREFIXES = ["module.", "_orig_mod.", "network.", "model.", "backbone.", "module._orig_mod.", "encoder."]


@pytest.mark.parametrize(
    ("name", "change", "taken"),
    [
        ("w.pth", lambda state: state, ""),
        ("w.pt", lambda state: {"state_dict": state, "epoch": 1}, ", from its entry state_dict"),
        ("w.bin", lambda state: {"model": state, "optimizer": {"state": {}}}, ", from its entry model"),
        ("w.bin", lambda s: {"model": s, "model_ema": {"decay": 0.99}, "state_dict_ema": {}}, ", from its entry model"),
        ("w.CKPT", lambda state: {"model": {"state_dict": state}}, ", from its entry model.state_dict"),
        (
            "w.pth",
            torchvisions,
            ", from its entry model_ema rather than model, prefix module. removed, without n_averaged",
        ),
        (
            "w.pth.tar",
            lambda state: {"arch": "resnet18", "state_dict": other(state), "state_dict_ema": state},
            ", from its entry state_dict_ema rather than state_dict",
        ),
        *(("w.safetensors", under(prefix), f", prefix {prefix} removed") for prefix in PREFIXES),
        (
            "w.pt",
            lambda state: {"state_dict": {**under("model.")(state), "loss.weight": torch.zeros(3)}},
            ", from its entry state_dict, prefix model. removed, without loss.weight",
        ),
    ],
)
def test_what_is_unambiguous_is_taken_and_said(name, change, taken, state, tmp_path):
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(change(state), path)
    network, said = load(path)
    assert said.startswith(f"weights: 120 tensors loaded from {path}{taken}{HEAD}")
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items() if not name.startswith("fc."))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype, state, tmp_path):
    counted = {name: tensor + 450_000 if "num_batches" in name else tensor for name, tensor in state.items()}
    torch.save({name: tensor.to(dtype) for name, tensor in counted.items()}, tmp_path / "w.pth")
    network, said = load(tmp_path / "w.pth")
    assert f"w.pth, converted from {str(dtype).removeprefix('torch.')} to float32; its head" in said
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, state["conv1.weight"].to(dtype).float())


def test_a_trunk_without_a_head_loads(state, tmp_path):
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    torch.save(under("backbone.")(trunk), tmp_path / "w.pt")
    network = ResNetCBAM(12, backbone="resnet18", attention="none")
    said = load_pretrained(network, str(tmp_path / "w.pt"), "resnet18", NAMES)
    assert said.endswith("w.pt, prefix backbone. removed; randomly initialised: fc.bias, fc.weight")


def holds_itself():
    content: dict = {"epoch": 1}
    content["model"] = content
    return content


def replaced(state, **tensors):
    return {**state, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"state_dict": s, "model": other(s)}, "in several entries, state_dict, model: save the one that is"),
        (lambda s: {**under("q.")(s), **under("k.")(s)}, "several networks, whose names begin with 'q.', 'k.': save"),
        (lambda s: {"resnet": s, "epoch": 1}, "w.pth is not a state dict of tensors by name, but has resnet, epoch: "),
        (lambda s: {"model": {}}, "w.pth is not a state dict of tensors by name, but has model: save"),
        (lambda s: {}, "w.pth is not a state dict of tensors by name: save"),
        (lambda s: holds_itself(), "is not a state dict of tensors by name, but has epoch, model: save"),
        (lambda s: {"stem.weight": s["conv1.weight"]}, "must name its tensors as .* but has stem.weight: rename them"),
        (lambda s: replaced(s, bn1__weight=torch.zeros(64, dtype=torch.int8)), r"has bn1.weight \(int8\): choose a fi"),
        (
            lambda s: {"model": under("module.")(replaced(s, bn1__bias=torch.full([64], torch.nan)))},
            "w.pth has values that are NaN or infinite in bn1.bias: choose another file",
        ),
        (lambda s: under("module.")(torchvision.models.resnet34().state_dict()), "backbone resnet34 instead of"),
    ],
)
def test_what_is_ambiguous_or_spoilt_is_refused(change, message, state, tmp_path):
    torch.save(change(state), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / "w.pth")
    assert "--model" not in str(caught.value) or "backbone" in message


def test_this_projects_own_files_are_weights_too(trained):
    """Their head is used for the same classes in the same order only, whichever of the files says so."""
    names = [str(label) for label in range(12)]
    for file in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "model.safetensors"):
        network = ResNetCBAM(12, backbone="resnet18")
        said = load_pretrained(network, str(trained / file), "resnet18", names)
        assert torch.equal(network.fc.weight, read_trained_model(trained / file).network["fc.weight"])
        assert "head" not in said
        assert ("from its entry state_dict, prefix network. removed" in said) == file.endswith("ckpt")
        said = load_pretrained(network, str(trained / file), "resnet18", names[::-1])
        assert "its head of 12 classes is left out, as they are different or in another order" in said


def test_a_pruned_networks_masks_are_applied(tmp_path):
    model = ImageClassifier(["a", "b"], backbone="resnet18", attention="none")
    nn.utils.prune.l1_unstructured(model.network.conv1, "weight", amount=0.5)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.ckpt")
    tensors = read_state_dict(tmp_path / "w.ckpt").tensors
    assert (tensors["conv1.weight"] == 0).sum() == tensors["conv1.weight"].numel() / 2


def test_a_model_file_whose_weights_are_not_finite_is_refused(trained, tmp_path):
    tensors, header = load_safetensors(trained / "model.safetensors")
    save_file(tensors | {"fc.bias": torch.full([12], torch.nan)}, tmp_path / "m.safetensors", header)
    with pytest.raises(UserError, match=r"m.safetensors has values that are NaN or infinite in fc.bias: choose"):
        read_trained_model(tmp_path / "m.safetensors")
