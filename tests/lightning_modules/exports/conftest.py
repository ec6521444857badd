"""A small network of many answers, and its exports: tracing takes seconds, so that it is done once."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

from datamodules.images.transforms import normalize
from lightning_modules import ImageClassifier
from lightning_modules.exports import write
from lightning_modules.exports.delivered import DeliveredNetwork
from lightning_modules.exports.header import SUFFIXES, export_header
from lightning_modules.exports.onnx_file import onnx_model
from lightning_modules.network.attention import ChannelGate, SpatialGate
from lightning_modules.trained_model import TrainedModel

SIZE = 32
LOGITS = 2.0  # their standard deviation
ODD = ['quo"te', "it's", "line\nbreak", "tab\t", " lead", "<b>&amp;", "\udcff no UTF-8", "ü", "back\\slash", "a" * 250]
GATES = {"attention_gate": "identity"}  # with which features differ between images as much as a trained network's do
DATA = {"image_size": SIZE, "val_fraction": 0.1, "seed": 42}


def classifier(names=ODD, **options):
    """A network whose batch norms have seen something, with gates that do something and probabilities up to 1."""
    torch.manual_seed(0)
    model = ImageClassifier(class_names=[*names], backbone="resnet18", weights="none", **GATES, **options).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, SpatialGate):
                module.conv.weight.normal_(0, 0.1)
            elif isinstance(module, ChannelGate):
                module.expand.weight.normal_(0, 0.1)
        features = model.network.fc.register_forward_pre_hook(lambda fc, inputs: seen.append(inputs[0]))
        seen = []
        model.network(normalize(torch.from_numpy(images(64)).permute(0, 3, 1, 2)))
        features.remove()
        model.network.fc.weight.mul_(LOGITS / (seen[0] @ model.network.fc.weight.T).std(0).mean())
        model.network.fc.bias.sub_((seen[0] @ model.network.fc.weight.T).mean(0))
    return model


def trained_of(model):
    return TrainedModel(dict(model.hparams), DATA, model.network.state_dict())


def images(count=24, seed=0):
    """Blocks of random colours ``(count, 32, 32, 3)``, of one to eight blocks a side, so that images differ much."""
    rng = np.random.default_rng(seed)
    sides = [1 + i % 8 for i in range(count)]
    blocks = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides]
    places = [np.arange(SIZE) * side // SIZE for side in sides]
    return np.stack([block[place][:, place] for block, place in zip(blocks, places, strict=True)])


def eager(model, pixels):
    """Probabilities by the plain network, with batch norm where it was."""
    with torch.no_grad():
        return model.network(normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))).softmax(1).numpy()


@functools.cache
def plain_model():
    return classifier()


@functools.cache
def plain_graph():
    return onnx_model(DeliveredNetwork(plain_model()), SIZE)


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Writes an export of ``plain_model`` without tracing it anew, and returns its path."""
    monkeypatch.setattr(write, "onnx_model", lambda network, size: copy.deepcopy(plain_graph()))

    def run(format, precision="fp32", name="model", **others):
        model = plain_model()
        path = tmp_path / f"{name}{SUFFIXES[format]}"
        header = export_header(model, trained_of(model), format=format, precision=precision) | others
        calibration = iter([images(48, seed=1), images(48, seed=2)]) if precision == "int8" else None
        size = write.write_export(model, header, path, format=format, precision=precision, calibration=calibration)
        assert size == sum(file.stat().st_size for file in tmp_path.glob(f"{name}.*"))
        return path

    return run
