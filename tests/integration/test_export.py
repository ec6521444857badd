"""Exports through the command: what is accepted, what is refused, and that nothing else gets its final name."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from datamodules import ImageFolderDataModule
from lightning_modules import ImageClassifier
from lightning_modules.exports.header import PRECISIONS
from lightning_modules.exports.write import write_export
from lightning_modules.trained_model import export_metadata, read_trained_model
from scripts.export import check
from scripts.export.command import ExportRefusedError, export
from scripts.export.fresh_process import FileAnswers
from scripts.export.validation import evaluate
from scripts.main import main
from tests.integration.fork_driver import drive

pytestmark = pytest.mark.processes
PAIRS = [(format, precision) for format, precisions in PRECISIONS.items() for precision in precisions]
QUICK = [("safetensors", "bf16")]  # and ONNX in float32, of the fixture graph


def words(trained, data_root, format, precision, *more):
    options = {"--ckpt_path": trained / "model.safetensors", "--data.root": data_root, "--data.num_workers": 0}
    options |= {"--format": format, "--precision": precision, "--output": "out"}
    return ["export", *(str(word) for option in options.items() for word in option), *more]


@pytest.fixture
def in_this_process(monkeypatch):
    """Checks files here, for tests of what happens before and after."""

    def answers(path, root, options):
        written = path.with_name("answers.npz")
        check.main(path, root, written, options)
        with np.load(written) as arrays:
            return FileAnswers(arrays["probabilities"], **json.loads(str(arrays["facts"])))

    monkeypatch.setattr("scripts.export.command.answers_in_fresh_process", answers)


def probabilities():
    with np.load("prediction_probabilities.npz") as file:
        return file["probability"]


@pytest.mark.parametrize(
    ("format", "precision"), [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in PAIRS]
)
def test_the_file_predicts_as_the_checkpoint(format, precision, trained, data_root, run_folder):
    suffix = {"safetensors": ".safetensors", "onnx": ".onnx", "openvino": ".xml"}[format]
    outcomes = drive({"args": words(trained, data_root, format, precision, "--max_drop=0.1")})
    assert outcomes[0]["code"] == 0, outcomes[0]["error"]
    assert f"out/model{suffix} and out/MODEL_CARD.md are accepted" in outcomes[0]["output"]
    names = {f"model{suffix}", "MODEL_CARD.md", *(["model.bin"] if format == "openvino" else [])}
    assert {path.name for path in Path("out").iterdir()} == names
    rows = []
    for file in (trained / "model.safetensors", f"out/model{suffix}"):
        options = ["--prediction.probabilities=true", "--data.num_workers=0", "--trainer.precision=32-true"]
        outcomes = drive({"args": ["predict", "--ckpt_path", file, "--data.root", data_root, *options]})
        assert outcomes[0]["code"] == 0, outcomes[0]["error"]
        assert " images/s" in outcomes[0]["output"].splitlines()[-1]
        runtime = json.loads(Path("prediction_manifest.json").read_text())["runtime"]
        assert f"predicting with {runtime}\n" in outcomes[0]["output"]
        rows.append((Path("prediction.csv").read_bytes(), probabilities()))
    tolerance = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 1e-2, "int8": 0.1}[precision]
    np.testing.assert_allclose(rows[1][1], rows[0][1], atol=tolerance)
    assert precision != "fp32" or rows[0][0] == rows[1][0]


@pytest.fixture(scope="module")
def graph(trained, data_root, new_folder):
    """An export to ONNX in float32."""
    folder = new_folder("graph")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (outcome,) = drive({"args": words(trained, data_root, "onnx", "fp32")})
    assert outcome["code"] == 0, outcome["error"]
    return folder / "out" / "model.onnx"


def test_a_graph_predicts_as_the_checkpoint_on_one_process_and_on_two(graph, trained, data_root, run_folder):
    common = ["predict", f"--data.root={data_root}", "--data.num_workers=0"]
    two = ["--trainer.strategy=ddp", "--trainer.devices=2", "--prediction.path=two.csv"]
    checkpoint = [f"--ckpt_path={trained / 'model.safetensors'}", "--prediction.path=checkpoint.csv"]
    outcomes = drive(
        {"args": [*common, *checkpoint, "--trainer.precision=32-true"]},
        {"args": [*common, f"--ckpt_path={graph}"]},
        {"args": [*common, f"--ckpt_path={graph}", *two]},
    )
    assert [outcome["code"] for outcome in outcomes] == [0, 0, 0], outcomes[-1]["error"]
    assert "thread, fp32, on each of 2 processes" in outcomes[2]["output"]
    assert Path("two.csv").read_bytes() == Path("prediction.csv").read_bytes() == Path("checkpoint.csv").read_bytes()
    manifest = json.loads(Path("two_manifest.json").read_text())
    assert manifest["runtime"].startswith("ONNX Runtime ")
    assert manifest["processes"] == 2


@pytest.mark.parametrize(
    ("format", "precision", "sentence"),
    [
        # 24 images, all right before and none after: 2 · (1/2)²⁴ is 1.2e-07
        ("onnx", "int8", "is 0.0000, which is 1.0000 less than the checkpoint's 1.0000 (McNemar's p = 1.2e-07)"),
        ("safetensors", "fp32", "it puts 24 of 24 validation images into another class"),
    ],
)
def test_a_file_that_answers_otherwise_is_refused_and_removed(
    format, precision, sentence, trained, data_root, run_folder, in_this_process, monkeypatch, capsys
):
    """The file's head is negated, so that its most probable class was the least; the checkpoint's are taken as true."""

    def write(model, *arguments, **options):
        with torch.no_grad():
            for parameter in model.network.fc.parameters():
                parameter.neg_()
        return write_export(model, *arguments, **options)

    def evaluate_as_true(*arguments):
        found = evaluate(*arguments)
        return replace(found, targets=found.predicted, lead=found.lead + 1)

    monkeypatch.setattr("scripts.export.command.write_export", write)
    monkeypatch.setattr("scripts.export.command.evaluate", evaluate_as_true)
    with pytest.raises(SystemExit, match="1"):
        main(words(trained, data_root, format, precision))
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"cbam100: refused: the {format} file in {precision} was removed, as ")
    assert sentence in error
    assert list(Path("out").iterdir()) == []


def test_a_file_that_cannot_be_opened_is_refused(trained, data_root, run_folder, monkeypatch):
    def write(model, header, path, **options):
        path.write_bytes(b"nothing that can be opened")
        return 26

    monkeypatch.setattr("scripts.export.command.write_export", write)
    with pytest.raises(ExportRefusedError, match=r"cannot be used in a fresh process \(cannot load .*candidate"):
        export(
            trained / "model.safetensors",
            data_root,
            format="safetensors",
            precision="fp16",
            output="out",
            num_workers=0,
        )
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize(
    "kill",
    [
        {"at": ["scripts.export.command.write_export", 1]},
        {"at": ["scripts.export.validation.validation_batches", 1], "word": "candidate", "to": "parent"},
        {"at": ["scripts.export.command.put_into_place", 1]},
        {"at": ["shutil.copyfile", 1]},
    ],
    ids=["before it is written", "while it is checked", "before it is renamed", "while it is put into place"],
)
def test_a_killed_export_leaves_nothing_with_its_name(kill, trained, data_root, run_folder):
    command = {"args": words(trained, data_root, "safetensors", "fp16")}
    (killed,) = drive({**command, **kill, "signal": signal.SIGKILL})
    assert killed["code"] == -signal.SIGKILL
    assert all(path.name.startswith(".") for path in Path("out").iterdir())
    assert list(Path("out").iterdir()) != []
    (again,) = drive(command)
    assert again["code"] == 0
    left = {path.name for path in Path("out").iterdir()} - {"model.safetensors", "MODEL_CARD.md"}
    assert not left or "to" in kill  # a fork, which outlives the killed process for a moment, holds its lock


ODD = ['"quoted"', "two\nlines", "```", "| pipe", "caf\udce9", "ünï", "-", "=1+1", "<b>", *map(str, range(991))]


@pytest.fixture
def odd(run_folder):
    """A model of 1,000 classes with odd names, and its data."""
    pixels = np.random.default_rng(0).integers(0, 256, (len(ODD), 36, 36, 3), np.uint8)
    for split in "train", "val":
        for name, image in zip(ODD, pixels, strict=True):
            Path("root", split, name).mkdir(parents=True)
            Image.fromarray(image).save(Path("root", split, name, "1.png"), compress_level=1)
    model = ImageClassifier(ODD, backbone="resnet18")
    model.network.fc.weight.data *= 100  # or an untrained network would answer all images alike
    data = ImageFolderDataModule("root", image_size=32, class_names=ODD)
    save_file(model.network.state_dict(), "odd.safetensors", export_metadata(model, data, {}))
    return Path("odd.safetensors")


@pytest.mark.parametrize(
    "format", ["safetensors", *(pytest.param(x, marks=pytest.mark.slow) for x in ("onnx", "openvino"))]
)
def test_odd_class_names_travel(format, odd, in_this_process):
    exported = export(odd, "root", format=format, precision="fp32", output="out", num_workers=0)
    assert read_trained_model(exported.path).model["class_names"] == ODD
    card = Path("out/MODEL_CARD.md").read_text()
    _, classes, _ = card.split("\n```\n")
    assert [json.loads(line) for line in classes.splitlines()] == ODD


def test_the_card_keeps_the_licence_and_states_the_interval(
    trained, data_root, run_folder, in_this_process, refusal, monkeypatch
):
    command = words(trained, data_root, "safetensors", "fp16")
    main(command)
    card = Path("out/MODEL_CARD.md")
    right = round(24 * read_trained_model(trained / "model.safetensors").metrics["val/accuracy"])
    share, z2 = right / 24, 1.96**2
    spread = (z2 * share * (1 - share) / 24 + z2**2 / (4 * 24**2)) ** 0.5
    low, high = ((share + z2 / 48 + sign * spread) / (1 + z2 / 24) for sign in (-1, 1))
    row = next(line for line in card.read_text().splitlines() if "the checkpoint in float32 |" in line)
    assert [float(x) for x in row.split("|")[2:4][1].split(" to ")] == pytest.approx([low, high], abs=2e-4)
    assert f"{Path('out/model.safetensors').stat().st_size:,} bytes" in card.read_text()
    card.write_text(card.read_text().replace("license: # to be filled in", "license: mit # to be filled in"))
    main(command)
    assert card.read_text().splitlines()[1] == "license: mit"
    main(words(trained, data_root, "safetensors", "bf16"))  # of another precision, the licence being kept
    assert card.read_text().splitlines()[1] == "license: mit"
    edited = card.read_text().replace("Describe here where", "From a zoo: where")
    card.write_text(edited)
    monkeypatch.setattr("scripts.export.command.load_classifier", lambda path: pytest.fail("work began"))
    assert "out/MODEL_CARD.md was edited, so it is not overwritten" in refusal(*command)
    assert card.read_text() == edited


def test_fp16_holds_the_rounded_weights(trained, data_root, run_folder, in_this_process):
    main(words(trained, data_root, "safetensors", "fp16"))
    before = load_file(trained / "model.safetensors")
    with safe_open("out/model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            expected = before[name].half() if before[name].is_floating_point() else before[name]
            assert torch.equal(file.get_tensor(name), expected)
    main(["validate", "--ckpt_path=out/model.safetensors", f"--data.root={data_root}", "--data.num_workers=0"])


def test_options_that_a_graph_cannot_follow(graph, data_root, run_folder, refusal):
    for option, sentence in (
        ("--model.tta=hflip", "tta hflip instead of none"),
        ("--data.image_size=64", "image_size 64 instead of 32"),
        ("--trainer.precision=bf16-mixed", "was chosen when it was exported, so --trainer.precision bf16-mixed"),
        ("--trainer.accelerator=gpu", "runs on the CPU, but --trainer.accelerator is gpu"),
    ):
        error = refusal("predict", f"--ckpt_path={graph}", f"--data.root={data_root}", option)
        assert sentence in error
    assert not Path("prediction.csv").exists()
