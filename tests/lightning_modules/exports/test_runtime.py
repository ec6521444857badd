import sys

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from datamodules.files.errors import UserError
from lightning_modules.exports.header import export_header
from lightning_modules.exports.onnx_file import onnx_bytes
from lightning_modules.exports.runtime import open_runtime
from lightning_modules.exports.write import write_export
from tests.lightning_modules.exports.conftest import images, plain_graph, plain_model, trained_of


@pytest.mark.parametrize("name", ["checkpoints/best.ckpt", "model.safetensors"])
def test_a_checkpoint_runs_in_float32(name, trained):
    opened = open_runtime(trained / name, threads=1)
    assert opened.description.startswith("PyTorch ")
    assert opened.header["classes"] == [str(label) for label in range(12)]
    assert opened.probabilities(images()).shape == (24, 12)


def test_a_missing_file_and_an_unknown_suffix(tmp_path):
    with pytest.raises(UserError, match=r"there is no file at .*none.onnx: check the path"):
        open_runtime(tmp_path / "none.onnx")
    with pytest.raises(UserError, match=r"must end in .ckpt, .safetensors, .onnx, .xml, got model.tflite"):
        open_runtime(tmp_path.joinpath("model.tflite").relative_to(tmp_path))


def test_a_damaged_onnx_file(export):
    path = export("onnx")
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(UserError, match=r"model.onnx is not a model exported by cbam100, or is damaged \(.*: export"):
        open_runtime(path)


def test_a_model_of_another_project(tmp_path):
    (tmp_path / "theirs.onnx").write_bytes(onnx_bytes(plain_graph(), {"classes": "cat,dog"}))
    with pytest.raises(UserError, match=r"theirs.onnx is not a model exported by cbam100, or is damaged \(JSONDecode"):
        open_runtime(tmp_path / "theirs.onnx")


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"<net name='x' version='11'></net>"])
def test_an_xml_of_something_else(content, export):
    path = export("openvino")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model.xml is not a model exported by cbam100, or is damaged \(.*: export"):
        open_runtime(path)


def test_openvino_weights_that_are_missing_cut_or_of_another_export(export, tmp_path):
    path = export("openvino")
    weights = path.with_suffix(".bin")
    whole = weights.read_bytes()
    middle = len(whole) // 2  # weights of another export differ in more than a bit
    weights.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(UserError, match=r"model.bin is not the weights file of .*model.xml, or is damaged: copy both"):
        open_runtime(path)
    weights.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"model.bin is not the weights file of"):
        open_runtime(path)
    weights.write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"damaged"):
        open_runtime(path)
    weights.unlink()
    with pytest.raises(UserError, match=r"model.bin must lie beside .*model.xml, .* but is missing: copy both"):
        open_runtime(path)


def test_a_graph_whose_answers_have_changed_is_refused(export):
    path = export("onnx")
    model = onnx.load(path)
    biases = next(x for x in model.graph.initializer if len(x.dims) == 1 and x.data_type == onnx.TensorProto.FLOAT)
    biases.CopyFrom(onnx.numpy_helper.from_array(np.full(biases.dims, np.nan, np.float32), biases.name))
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"model.onnx fails its own self-test: a probability is nan from .*: export it"):
        open_runtime(path)
    del model.metadata_props[[entry.key for entry in model.metadata_props].index("self_test")]
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"its self-test cannot be run, KeyError"):
        open_runtime(path)


def test_altered_classes_are_refused(export):
    path = export("onnx")
    model = onnx.load(path)
    (classes,) = [entry for entry in model.metadata_props if entry.key == "classes"]
    classes.value = classes.value.replace("it's", "its")
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"the classes in .*model.onnx do not match their hash: the file was altered"):
        open_runtime(path)


@pytest.mark.parametrize(("package", "format", "extra"), [
    ("onnxruntime", "onnx", "onnx"), ("onnxscript", "onnx", "onnx"), ("openvino", "openvino", "openvino"),
])  # fmt: skip
def test_a_missing_package_names_its_extra(package, format, extra, export, monkeypatch):
    path = export(format)
    monkeypatch.setitem(sys.modules, package, None)
    sentence = rf"{package} cannot be imported .*: pip install 'cbam100\[{extra}\]'"
    if package != "onnxscript":  # which running does without
        with pytest.raises(UserError, match=sentence):
            open_runtime(path)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, package, None)
    model = plain_model()
    header = export_header(model, trained_of(model), format=format, precision="fp32")
    with pytest.raises(UserError, match=sentence):
        write_export(model, header, path, format=format, precision="fp32")
