"""Predictions, checked against plain torch and Pillow."""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from datamodules import ImageFolderDataModule
from lightning_modules import ImageClassifier, ResNetCBAM
from lightning_modules.trained_model import export_metadata
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


@pytest.mark.parametrize(
    ("template", "names", "labels"),
    [
        (True, ["b", "=a", "c"], ["-1", "=2", "caf\\xe9", "x", "y"]),  # as the template and the folders spell them
        (False, ["'=a", "b", "c"], ["'-1", "'=2", "caf\\xe9", "x", "y"]),
    ],
)
def test_every_file_spells_classes_alike_and_takes_equal_ones_in_their_order(
    template, names, labels, run_folder, capsys
):
    Path("test").mkdir()
    for name in "=a", "b", "c":
        Image.new("RGB", (36, 36)).save(f"test/{name}.png")
    if template:
        Path("sample_submission.csv").write_text("image_name,pred_label\nb,'x\n=a,x\nc,x\n")
    model = ImageClassifier(["-1", "=2", "caf\udce9", "x", "y"], backbone="resnet18")
    torch.nn.init.zeros_(model.network.fc.weight)
    torch.nn.init.zeros_(model.network.fc.bias)  # all classes are equally probable
    data = ImageFolderDataModule(".", image_size=32, class_names=list(model.classes.names))
    save_file(model.network.state_dict(), "model.safetensors", export_metadata(model, data, {}))
    command = ["predict", "--ckpt_path=model.safetensors", "--data.root=.", "--data.num_workers=0"]
    main([*command, "--prediction.top_k=5", "--prediction.probabilities=true"])
    assert [list(row.values()) for row in rows("prediction.csv")] == [[name, labels[0]] for name in names]
    assert [list(row.values())[:6] for row in rows("prediction_topk.csv")] == [[name, *labels] for name in names]
    with np.load("prediction_probabilities.npz") as file:
        assert (file["image_name"].tolist(), file["class_name"].tolist()) == (names, labels)

    Path("test/c.png").write_text("not an image")
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--prediction.path=again.csv"])
    assert [list(row.values()) for row in rows("again.csv.partial")] == [[name, labels[0]] for name in names[:2]]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--prediction.path=again.csv", "--prediction.fallback_label==2 "])
    assert "5 classes, but spells '=2' as '=2 ' (other blanks): choose one of =2" in capsys.readouterr().err
    main([*command, "--prediction.path=again.csv", "--prediction.fallback_label==2"])
    assert [list(row.values()) for row in rows("again.csv")][2] == ["c", labels[1]]


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
