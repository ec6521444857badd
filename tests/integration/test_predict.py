"""Predictions, checked against plain torch and Pillow."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lightning_modules import ResNetCBAM
from scripts.main import main


@pytest.fixture
def probabilities_by_hand(trained, data_root):
    """Class probabilities of the test images by name, with and without the mirror image."""
    network = ResNetCBAM(12, backbone="resnet18")
    network.load_state_dict(load_file(trained / "model.safetensors"))
    paths = sorted((data_root / "test").iterdir())
    # 36 pixels are ⌊1.14 · 32⌋: nothing is resized, and the centre is 2 pixels from each side.
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"))[2:34, 2:34] for path in paths]) / 255
    images = torch.tensor((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        plain, mirrored = (network.eval()(x).softmax(1) for x in (images, images.flip(3)))
    names = [path.stem for path in paths]
    return {
        "none": dict(zip(names, plain, strict=True)),
        "hflip": dict(zip(names, (plain + mirrored) / 2, strict=True)),
    }


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predict_writes_the_networks_answers_in_the_templates_order(
    trained, data_root, run_folder, probabilities_by_hand
):
    main(["predict", f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}", "--data.num_workers=0",
          "--trainer.precision=32-true"])  # fmt: skip
    template = [line.split(",")[0] for line in (data_root / "sample_submission.csv").read_text().splitlines()[1:]]
    assert [row["image_name"] for row in rows("prediction.csv")] == template
    expected = [str(probabilities_by_hand["none"][name].argmax().item()) for name in template]
    assert [row["pred_label"] for row in rows("prediction.csv")] == expected
    with zipfile.ZipFile("prediction.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv") == Path("prediction.csv").read_bytes()


@pytest.mark.parametrize("tta", ["none", "hflip"])
def test_side_files_hold_the_probabilities(tta, trained, data_root, run_folder, probabilities_by_hand):
    main(["predict", f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}", "--data.num_workers=0",
          "--trainer.precision=32-true", "--prediction.top_k=3", "--prediction.probabilities=true",
          f"--model.tta={tta}"])  # fmt: skip
    expected = probabilities_by_hand[tta]
    with np.load("prediction_probabilities.npz") as file:
        written = dict(file)
    assert list(written["class_name"]) == [str(label) for label in range(12)]
    for name, probabilities in zip(written["image_name"], written["probability"], strict=True):
        torch.testing.assert_close(torch.from_numpy(probabilities), expected[str(name)], rtol=1e-4, atol=1e-6)
    for row, top in zip(rows("prediction.csv"), rows("prediction_topk.csv"), strict=True):
        values, labels = expected[row["image_name"]].topk(3)
        assert row["image_name"] == top["image_name"]
        assert [top[f"label_{rank}"] for rank in (1, 2, 3)] == [str(label) for label in labels.tolist()]
        assert [float(top[f"probability_{rank}"]) for rank in (1, 2, 3)] == pytest.approx(values.tolist(), rel=1e-4)
        assert row["pred_label"] == top["label_1"]


def test_one_file_is_predicted(trained, data_root, run_folder):
    image = next((data_root / "test").iterdir())
    main(["predict", f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}", "--data.num_workers=0",
          f"--data.predict_dir={image}"])  # fmt: skip
    assert [row["image_name"] for row in rows("prediction.csv")] == [image.stem]
    assert sorted(path.name for path in Path().iterdir()) == [
        "prediction.csv",
        "prediction.zip",
        "prediction_manifest.json",
    ]


def test_limiting_the_batches_writes_nothing(trained, data_root, run_folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}",
              "--data.num_workers=0", "--trainer.limit_predict_batches=1"])  # fmt: skip
    assert "got none for" in capsys.readouterr().err
    assert list(run_folder.iterdir()) == []
