"""A fitted temperature: in both files, in every probability, in no label, and the same after a resume."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar

from datamodules import ImageFolderDataModule
from datamodules.class_index import natural_key
from lightning_modules import ImageClassifier, ResNetCBAM
from lightning_modules.trained_model import largest_export_bytes, read_trained_model
from scripts.main import main
from tests.conftest import SMALL, working_in

FIT = ["fit", *SMALL, "--trainer.max_epochs=2", "--model.restart_epochs=2", "--model.temperature=fit",
       "--trainer.precision=32-true"]  # fmt: skip
RUN = Path("runs/default/version_0")


@pytest.fixture(scope="module")
def calibrated(data_root, new_folder):
    """The run folder of a two-epoch fit with a temperature."""
    folder = new_folder("calibrated")
    with working_in(folder):
        main([*FIT, f"--data.root={data_root}"])
    return folder / RUN


def logits_by_hand(weights, paths):
    """Logits of images and of their mirror images, by plain torch and Pillow."""
    network = ResNetCBAM(12, backbone="resnet18")
    network.load_state_dict(weights)
    # 36 pixels are ⌊1.14 · 32⌋: nothing is resized, and the centre is 2 pixels from each side.
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"))[2:34, 2:34] for path in paths]) / 255
    images = torch.tensor((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        return [network.eval()(x) for x in (images, images.flip(3))]


def validation_by_hand(weights, root):
    """Logits and targets of the validation images."""
    paths = sorted(root.glob("val/*/*"), key=lambda path: natural_key(path.as_posix()))  # as the data set lists them
    return logits_by_hand(weights, paths)[0], torch.tensor([int(path.parent.name) for path in paths])


def temperature_by_hand(weights, root):
    logits, targets = validation_by_hand(weights, root)

    def likelihood(log_temperature):
        return F.cross_entropy(logits.double() / math.exp(log_temperature), targets).item()

    bounds = (math.log(0.05), math.log(20))
    return math.exp(minimize_scalar(likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x)


def load(path):
    return torch.load(path, weights_only=True)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_both_files_hold_the_temperature_of_their_weights(calibrated, data_root):
    weights = load_file(calibrated / "model.safetensors")
    expected = temperature_by_hand(weights, data_root)
    assert 0.05 < expected < 20  # not at a bound
    with safe_open(calibrated / "model.safetensors", framework="pt") as file:
        header = {name: json.loads(text) for name, text in file.metadata().items() if name != "format"}
    assert header["temperature"] == pytest.approx(expected, rel=1e-4)
    assert load(calibrated / "checkpoints/best.ckpt")["temperature"] == header["temperature"]
    best = json.loads((calibrated / "manifest.json").read_text())["best"]
    assert best["val/temperature"] == header["metrics"]["val/temperature"] == np.float32(header["temperature"])
    assert {"val/nll_calibrated", "val/ece_calibrated"} <= best.keys()
    last = load(calibrated / "checkpoints/last.ckpt")
    of_last = {
        name.removeprefix("network."): x for name, x in last["state_dict"].items() if name.startswith("network.")
    }
    assert last["temperature"] == pytest.approx(temperature_by_hand(of_last, data_root), rel=1e-4)


def test_a_resumed_fit_ends_with_the_same_temperatures(calibrated, data_root, run_folder):
    main([*FIT, f"--data.root={data_root}", "--trainer.max_steps=4"])  # 3 steps are an epoch
    first = load(RUN / "checkpoints/last.ckpt")["temperature"]
    assert first == load(RUN / "checkpoints/best.ckpt")["temperature"] != 1
    main([*FIT, f"--data.root={data_root}", "--ckpt_path=last"])
    for name in ("best.ckpt", "last.ckpt"):
        ended, expected = (load(run / "checkpoints" / name)["temperature"] for run in (RUN, calibrated))
        assert ended == expected


@pytest.mark.parametrize("tta", ["none", "hflip"])
def test_predict_divides_logits_by_it_and_changes_no_label(tta, calibrated, data_root, run_folder):
    paths = sorted((data_root / "test").iterdir())
    views = logits_by_hand(load_file(calibrated / "model.safetensors"), paths)
    mean = torch.stack(views[: 1 + (tta == "hflip")]).double().softmax(2).mean(0)
    # Of one view, softmax(logits / temperature)
    powers = mean ** (1 / load(calibrated / "checkpoints/best.ckpt")["temperature"])
    expected = dict(zip((path.stem for path in paths), powers / powers.sum(1, keepdim=True), strict=True))
    top = sorted(probabilities.max().item() for probabilities in expected.values())
    threshold = (top[9] + top[10]) / 2

    command = ["predict", f"--ckpt_path={calibrated / 'model.safetensors'}", f"--data.root={data_root}",
               "--data.num_workers=0", "--trainer.precision=32-true", f"--model.tta={tta}"]  # fmt: skip
    review = f"--prediction.min_probability={threshold}"
    main([*command, "--prediction.top_k=3", "--prediction.probabilities=true", review])
    main([*command, "--prediction.top_k=3", "--prediction.path=plain.csv", "--model.temperature=none"])
    main([*command, "--prediction.path=one.csv", review])
    with np.load("prediction_probabilities.npz") as file:
        for name, probabilities in zip(file["image_name"], file["probability"], strict=True):
            np.testing.assert_allclose(probabilities, expected[str(name)], rtol=1e-4, atol=1e-6)
    assert Path("prediction.csv").read_bytes() == Path("plain.csv").read_bytes() == Path("one.csv").read_bytes()
    plain = dict(zip(expected, mean, strict=True))
    for row, other, one in zip(*(rows(f"{stem}_topk.csv") for stem in ("prediction", "plain", "one")), strict=True):
        name = row["image_name"]
        assert list(row) == [*other, "review"]
        assert [row[f"label_{rank}"] for rank in (1, 2, 3)] == [other[f"label_{rank}"] for rank in (1, 2, 3)]
        assert float(other["probability_1"]) == pytest.approx(plain[name].max().item(), rel=1e-4)
        assert row["review"] == str(int(expected[name].max() < threshold))
        assert one == {key: row[key] for key in ("image_name", "label_1", "probability_1", "review")}
    assert sum(row["review"] == "1" for row in rows("prediction_topk.csv")) == 10


def test_explain_shows_the_probability_at_it(calibrated, data_root, run_folder, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "scripts.explain.command.map_figure", lambda image, title, maps, cam, target: titles.append(target)
    )
    monkeypatch.setattr("scripts.explain.command.to_png", lambda figure: b"")
    path = next((data_root / "test").iterdir())
    main(["explain", f"--ckpt_path={calibrated / 'model.safetensors'}", str(path), "--output=maps"])
    logits, _ = logits_by_hand(load_file(calibrated / "model.safetensors"), [path])
    probabilities = (logits[0] / load(calibrated / "checkpoints/best.ckpt")["temperature"]).softmax(0)
    assert titles == [f"{probabilities.argmax()} {probabilities.max():.2f}"]


def test_the_report_tells_it(calibrated, data_root, tmp_path):
    run = shutil.copytree(calibrated, tmp_path / "run")
    main(["report", f"--run={run}", f"--data.root={data_root}"])
    page = (run / "report.html").read_text()
    best = json.loads((run / "manifest.json").read_text())["best"]
    assert f"holds the temperature {best['val/temperature']:.3f}" in page
    for before, after in (("val/nll", "val/nll_calibrated"), ("val/ece", "val/ece_calibrated")):
        assert f'<td class="number">{best[before]:.4f}</td><td class="number">{best[after]:.4f}</td>' in page


def test_the_size_of_the_file_is_foreseen(calibrated, data_root):
    model = ImageClassifier(**read_trained_model(calibrated / "model.safetensors").model)
    largest = largest_export_bytes(model, ImageFolderDataModule(data_root, image_size=32))
    assert 0 <= largest - (calibrated / "model.safetensors").stat().st_size < 500


def test_a_file_without_one_has_none_to_apply(trained, data_root, refusal):
    error = refusal("predict", f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}",
                    "--model.temperature=fit")  # fmt: skip
    assert "--model.temperature fit takes effect in a fit" in error
