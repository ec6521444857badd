import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from datamodules.files.errors import UserError
from lightning_modules.trained_model import read_trained_model
from lightning_modules.weights.weights_file import load_safetensors


def test_checkpoint_and_export_say_the_same(trained):
    checkpoint = read_trained_model(trained / "checkpoints" / "best.ckpt")
    export = read_trained_model(trained / "model.safetensors")
    assert checkpoint.model == export.model
    undivided = {"folds": 0, "fold": 0, "group_column": None, "group_pattern": None}
    assert checkpoint.data == export.data == {"image_size": 32, "val_fraction": 0.1, "seed": 42, **undivided}
    assert checkpoint.network.keys() == export.network.keys()
    assert all(torch.equal(checkpoint.network[name], export.network[name]) for name in checkpoint.network)


def test_export_header_holds_what_a_stranger_needs(trained):
    header = {
        k: v if k == "format" else json.loads(v) for k, v in load_safetensors(trained / "model.safetensors")[1].items()
    }
    assert header["classes"] == [str(label) for label in range(12)]
    assert header["image_size"] == 32
    assert header["normalization"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert header["architecture"]["backbone"] == "resnet18"
    assert 0 <= header["metrics"]["val/accuracy"] <= 1


def test_altered_classes_are_refused(trained, tmp_path):
    tensors, header = load_file(trained / "model.safetensors"), load_safetensors(trained / "model.safetensors")[1]
    header["classes"] = json.dumps(["renamed", *json.loads(header["classes"])[1:]])
    save_file(tensors, tmp_path / "altered.safetensors", header)
    with pytest.raises(UserError, match=r"the classes in .* do not match their hash"):
        read_trained_model(tmp_path / "altered.safetensors")


def test_a_setting_of_a_later_version_is_refused(trained, tmp_path):
    tensors, header = load_file(trained / "model.safetensors"), load_safetensors(trained / "model.safetensors")[1]
    header["training"] = json.dumps({**json.loads(header["training"]), "distillation": 0.1})
    save_file(tensors, tmp_path / "later.safetensors", header)
    with pytest.raises(UserError, match=r"unknown to this version \(distillation\): update cbam100"):
        read_trained_model(tmp_path / "later.safetensors")


WRONG = [
    ("architecture", "reduction_ratio", "x", "reduction_ratio 'x'"),
    ("architecture", "reduction_ratio", True, "reduction_ratio True"),
    ("architecture", "dropout", None, "dropout None"),
    ("architecture", "backbone", ["resnet18"], r"backbone \['resnet18'\]"),
    ("training", "activation_checkpointing", "no", "activation_checkpointing 'no'"),
    ("training", "tta", "vflip", "tta 'vflip'"),
    ("data", "image_size", "224", "image_size '224'"),
    ("data", "seed", {}, "seed {}"),
    ("precision", None, 16, "precision 16"),
    ("temperature", None, "1", "temperature '1'"),
    ("temperature", None, 0.0, "temperature 0.0"),
    ("temperature", None, float("nan"), "temperature nan"),
]


@pytest.mark.parametrize(("part", "name", "value", "named"), WRONG)
def test_a_setting_of_a_wrong_type_is_refused(part, name, value, named, trained, tmp_path):
    tensors, header = load_safetensors(trained / "model.safetensors")
    header[part] = json.dumps({**json.loads(header[part]), name: value} if name else value)
    save_file(tensors, tmp_path / "altered.safetensors", header)
    with pytest.raises(
        UserError, match=rf"altered.* has settings that cannot be used \({named}\): the file was altered"
    ):
        read_trained_model(tmp_path / "altered.safetensors")


def test_a_setting_that_lacks_or_is_unknown_is_refused_in_the_datas_part_too(trained, tmp_path):
    tensors, header = load_safetensors(trained / "model.safetensors")
    for data, message in (({"seed": 1}, "KeyError: 'image_size'"), ({"crop": 1}, r"unknown to this version \(crop\)")):
        settings = data if "seed" in data else {**json.loads(header["data"]), **data}
        save_file(tensors, tmp_path / "altered.safetensors", header | {"data": json.dumps(settings)})
        with pytest.raises(UserError, match=message):
            read_trained_model(tmp_path / "altered.safetensors")


def test_a_setting_that_is_no_name_is_refused(trained, tmp_path):
    content = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"] |= {1: 2, "a": 3}
    torch.save(content, tmp_path / "altered.ckpt")
    with pytest.raises(UserError, match="is not a checkpoint or exported model of cbam100"):
        read_trained_model(tmp_path / "altered.ckpt")


def foreign_state_dict(path):
    torch.save({"conv1.weight": torch.zeros(1)}, path)


def foreign_list(path):
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.ckpt", lambda path: path.write_text("hello"), "cannot load .*a.ckpt"),
        ("a.ckpt", lambda path: path.touch(), "cannot load .*a.ckpt"),
        ("a.ckpt", foreign_state_dict, "is not a checkpoint or exported model of cbam100"),
        ("a.ckpt", foreign_list, "is not a checkpoint or exported model of cbam100"),
        ("a.safetensors", lambda path: path.write_text("hello"), "as a safetensors file"),
        (
            "a.safetensors",
            lambda path: save_file({"x": torch.zeros(1)}, path),
            "is not a checkpoint or exported model",
        ),
        ("a.ckpt", lambda path: None, "there is no file at"),
    ],
)
def test_anything_else_is_refused(name, write, message, tmp_path):
    write(tmp_path / name)
    with pytest.raises(UserError, match=message):
        read_trained_model(tmp_path / name)
