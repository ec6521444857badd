"""The example programs answer as ``cbam100 predict`` does, without it."""

import csv
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.csv_cells import to_cell
from datamodules.files.csv_tables import write_csv
from datamodules.images import read, transforms
from lightning_modules import ResNetCBAM
from lightning_modules.exports.header import export_header
from lightning_modules.exports.write import write_export
from lightning_modules.trained_model import load_classifier
from scripts.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = [EXAMPLES / "predict_onnx.py", EXAMPLES / "predict_openvino.py"]
FORMATS = {"predict_onnx.py": ("onnx", ".onnx"), "predict_openvino.py": ("openvino", ".xml")}
pytestmark = pytest.mark.processes
# Runs a program where neither torch nor this project can be imported.
ALONE = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "pytorch_lightning", "scripts", "callbacks",
                                      "lightning_modules", "datamodules"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(program, *words):
    return subprocess.run([sys.executable, "-I", "-c", ALONE, program, *words], capture_output=True, timeout=120)


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda path: path.stem)
def program(request):
    return request.param


@pytest.fixture(scope="module")
def weights(trained, photos, new_folder):
    """A trained file whose head is drawn anew so that the photos get several classes, some of odd names."""
    metadata, tensors = read_safetensors(trained / "model.safetensors")
    network = ResNetCBAM(12, backbone="resnet18")
    network.load_state_dict(tensors)
    images = [transforms.eval_transform(32)(read.read_image(str(path), shorter_side=36), 0) for path in visible(photos)]
    seen = []
    network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network.eval()(transforms.normalize(torch.stack(images).permute(0, 3, 1, 2)))
    (features,) = seen
    weight = torch.randn(12, features.shape[1], generator=torch.Generator().manual_seed(0)) / features.std(0).norm()
    head = [name for name in tensors if name.startswith("fc.")]
    assert len(head) == 2
    tensors |= {name: weight if name.endswith("weight") else -weight @ features.mean(0) for name in head}
    classes = ["=1", 'quo"te', "semi;colon", "a\nb", "caf\udce9", "a,b", *map(str, range(6))]
    metadata |= {"classes": json.dumps(classes), "class_digest": json.dumps(ClassIndex(classes).digest)}
    path = new_folder("weights") / "model.safetensors"
    save_file(tensors, path, metadata)
    return path


def read_safetensors(path):
    with safe_open(path, "pt") as file:
        return file.metadata(), load_file(path)


@pytest.fixture(scope="module")
def model(program, weights, new_folder):
    """An export that the program reads."""
    classifier, content = load_classifier(weights)
    format, suffix = FORMATS[program.name]
    header = export_header(classifier, content, format=format, precision="fp32")
    path = new_folder("export") / f"model{suffix}"
    write_export(classifier, header, path, format=format, precision="fp32")
    return path


@pytest.fixture(scope="module")
def photos(new_folder):
    """Images of every kind that can be read, with names of every kind."""
    folder, rng = new_folder("photos"), np.random.default_rng(1)

    def draw(name, width, height, mode="RGB", exif=None, **options):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 4), np.uint8), "RGBA" if mode == "RGBA" else None)
        image = coarse.resize((width, height), Image.Resampling.BICUBIC)
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        image.convert(mode).save(path, exif=exif or Image.Exif(), **options)

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        draw(f"turned {orientation}.jpg", 90, 61, exif=exif)
    for scale in (1, 2, 3, 4, 8, 9):  # whole and partial reductions while a JPEG is decoded
        draw(f"{scale}.jpg", 40 * scale + 5, 36 * scale)
    draw("grey.png", 20, 33, "L")
    draw("palette.png", 50, 40, "P")
    draw("see-through.png", 50, 40, "RGBA")
    draw("see-through too.webp", 40, 50, "RGBA")
    draw("ink.jpg", 60, 70, "CMYK")
    draw("photo.bmp", 37, 36)
    Image.fromarray(rng.integers(0, 65536, (41, 47), np.uint16)).save(folder / "deep.png")
    draw("dot.png", 1, 1)
    draw("strip.png", 1, 500)
    draw("10.png", 36, 36)
    draw("a/5.PNG", 35, 37)
    draw("=1.png", 64, 64)
    draw('quo"te,d;.jpeg', 64, 64)
    draw(b"caf\xe9.png".decode("utf-8", "surrogateescape"), 32, 32)
    draw(".hidden.png", 8, 8)
    draw(".folder/3.png", 8, 8)
    (folder / "notes.txt").touch()
    return folder


def visible(folder):
    return [path for path in folder.rglob("*.*") if path.is_file() and "/." not in str(path) and path.suffix != ".txt"]


def test_pixels_are_those_of_the_project(program, photos):
    names = runpy.run_path(str(program))
    for size in (16, 32, 48):
        side = transforms.side_to_load(size)
        header = {"image_size": size, "resize": {"shorter_side": side}}
        for path in visible(photos):
            expected = transforms.eval_transform(size)(read.read_image(str(path), shorter_side=side), 0)
            np.testing.assert_array_equal(names["read_image"](path, header)[0], expected, str(path))


def test_the_table_is_that_of_predict(program, model, weights, photos, run_folder):
    main(["predict", f"--ckpt_path={weights}", f"--data.predict_dir={photos}",
          f"--data.root={photos}", "--trainer.precision=32-true", "--data.num_workers=0"])  # fmt: skip
    done = alone(program, model, photos)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == Path("prediction.csv").read_bytes()
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
    assert len(rows) == len(visible(photos))
    assert len({row["pred_label"] for row in rows}) > 5


def test_names_are_spelled_and_quoted_as_in_predictions(program, tmp_path):
    names = runpy.run_path(str(program))
    odd = ["cat", "'=x", "-1", 'quo"te', "semi;colon", "a,b", "a\nb", "a\rb", "\ttab", r"\xe9", "\udce9", "＠"]
    assert [names["cell"](name) for name in odd] == list(map(to_cell, odd))
    rows = [(to_cell(one), to_cell(two)) for one, two in zip(odd, reversed(odd), strict=True)]
    write_csv(tmp_path / "expected.csv", ["image_name", "pred_label"], rows)
    lines = [names["csv_line"](*row) for row in [("image_name", "pred_label"), *rows]]
    assert "".join(lines).encode() == (tmp_path / "expected.csv").read_bytes()
    paths = [Path(name) for name in ("10.jpg", "2.jpg", "02.jpg", "a/1.jpg", "٣.jpg")]
    assert sorted(paths, key=names["natural_key"]) == sorted(paths, key=lambda path: natural_key(str(path)))


@pytest.mark.parametrize("other", ["BICUBIC", "NEAREST", "BOX"])
def test_the_self_test_fails_with_another_filter(other, program, model, photos, tmp_path):
    text = program.read_text()
    edited = tmp_path / "edited.py"
    edited.write_text(text.replace("Resampling.BILINEAR", f"Resampling.{other}"))
    assert text.count("Resampling.BILINEAR") == 2
    done = alone(edited, model, photos)
    assert (done.returncode, done.stdout) == (1, b"")
    assert re.fullmatch(rb"the self-test of .* fails, probabilities are off by [\d.e-]+: .*\n", done.stderr)


def test_mistakes_are_sentences(program, model, photos, tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"no image")
    done = alone(program, model, tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(f"cannot read {tmp_path}/1.jpg (cannot identify image file".encode())
    done = alone(program, model, photos / "1.jpg", photos / "1.jpg")
    assert done.stderr.startswith(b"image names must be unique")
    assert b"python predict_" in alone(program, model).stderr


def test_the_programs_differ_in_what_opens_the_model_only():
    bodies = {path.read_text().partition("\n\n\ndef read_image(")[2] for path in PROGRAMS}
    assert len(bodies) == 1
    assert "def main(" in bodies.pop()
