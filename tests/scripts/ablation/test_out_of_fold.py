import csv
import hashlib
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pytorch_lightning import Trainer

from scripts import evaluation
from scripts.ablation import runs
from scripts.main import main
from tests.conftest import SMALL

FIT = ["--trainer.max_epochs=2", "--model.restart_epochs=2", "--model.temperature=fit"]


@pytest.fixture
def root(data_root, run_folder, monkeypatch):
    """2 classes of 4 images and nothing else; fits run in this process, so that they are fast."""
    for name in ("10", "9"):
        shutil.copytree(data_root / "train" / name, run_folder / "photos" / "train" / name)

    def fit(cell, show):
        main([*cell.words, f"--run_name={cell.run_name}", "--ckpt_path=last"])
        return ""

    monkeypatch.setattr(runs, "_fit", fit)
    return run_folder / "photos"


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.filterwarnings("ignore:the temperature stays at its bound of 20")  # the network has learnt nothing
def test_every_image_is_answered_once_by_the_run_that_did_not_train_on_it(root, capsys):
    words = ["ablate", "--folds=2", *SMALL, *FIT, f"--data.root={root}"]
    main(words)
    folder = Path("runs/ablation_default")
    header, *rows = read(folder / "out_of_fold.csv")
    assert header == ["image_name", "label", "fold", "p(9)", "p(10)"]
    names = sorted(path.relative_to(root / "train").as_posix() for path in root.rglob("*.jpg"))
    assert sorted(row[0] for row in rows) == names
    assert [row[1] for row in rows] == ["9"] * 4 + ["10"] * 4
    # Dealt in turn by their hash, class after class
    dealt = sorted(names, key=lambda n: (n.split("/")[0], hashlib.sha256(f"42/train/{n}".encode()).hexdigest()))
    assert {row[0]: int(row[2]) for row in rows} == {name: place % 2 for place, name in enumerate(dealt)}
    right = 0
    for fold in range(2):
        run = folder / f"fold_{fold}" / "version_0"
        assert json.loads((run / "manifest.json").read_text())["data"]["train"]["images"] == 4
        own = {row[0]: [float(p) for p in row[3:]] for row in rows if row[2] == str(fold)}
        # predict has a way of its own to images and probabilities, with batch norm folded into the convolutions
        weights, images = f"--ckpt_path={run / 'model.safetensors'}", f"--data.predict_dir={root / 'train'}"
        main(["predict", weights, images, f"--data.root={root}", "--prediction.probabilities=true", *SMALL[:2]])
        with np.load("prediction_probabilities.npz") as table:
            predicted = dict(zip(table["image_name"], table["probability"], strict=True))
        for name, probability in own.items():
            assert probability == pytest.approx(predicted[Path(name).stem], rel=1e-4)
            right += int(np.argmax(probability) == (name[0] != "9"))
    text = (folder / "ablation.md").read_text()
    assert f"| {right} of 8 | {100 * right / 8:.2f} [" in text
    assert "Differences" not in text

    before = (folder / "out_of_fold.csv").read_bytes()
    main(words)
    assert capsys.readouterr().out.count("already finished, skipped") == 2
    assert (folder / "out_of_fold.csv").read_bytes() == before
    next((root / "train" / "9").iterdir()).unlink()
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "was started with other images" in capsys.readouterr().err


def test_an_unreadable_image_has_no_answer_and_the_fits_accelerator_answers(root, monkeypatch):
    for folder in (root / "train").iterdir():  # 20 images, of which one may be unreadable
        for number, image in itertools.product(range(4), [*folder.iterdir()]):
            shutil.copyfile(image, folder / f"{number}_{image.name}")
    bad = min((root / "train" / "9").iterdir())
    bad.write_bytes(bad.read_bytes()[:100])
    accelerators = []

    def trainer(**options):
        accelerators.append(options["accelerator"])
        return Trainer(**options)

    monkeypatch.setattr(evaluation, "Trainer", trainer)
    short = ["--trainer.max_epochs=1", "--model.restart_epochs=1", "--data.on_bad_image=skip"]
    main(["ablate", "--folds=2", *SMALL, *short, f"--data.root={root}"])
    _, *rows = read("runs/ablation_default/out_of_fold.csv")
    assert len(rows) == 40
    assert [row[0] for row in rows if row[3:] == ["", ""]] == [f"9/{bad.name}"]
    assert " of 39 |" in Path("runs/ablation_default/ablation.md").read_text()
    assert accelerators == ["cpu", "cpu"]  # as SMALL says, whatever there is


def test_a_learning_curve_is_measured_on_the_same_images(root):
    words = ["--vary=data.fraction=0.4,1", "--seeds=1", "--trainer.max_epochs=1", "--model.restart_epochs=1"]
    main(["ablate", *words, *SMALL, f"--data.root={root}"])
    text = Path("runs/ablation_default/ablation.md").read_text()
    assert "; images: 2 to 6 train, 2 val; " in text  # round(0.4 · 3) = 1 of each class, and all 3
    assert "All differences are on these validation images." in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--folds=1"], "--folds must be 2 or more, or 0 for none, got 1"),
        (["--folds=2", "--seeds=3"], "--seeds 3 cannot be combined with --folds 2, as each seed has other folds"),
        (["--folds=2", "--data.folds=2"], "ablate --folds sets --data.folds and --data.fold itself"),
        (["--folds=2", "--vary=data.fold=0,1"], "--vary cannot take data.fold"),
        (["--folds=2", "--arms=arms.yaml"], "one and two have another --data.group_pattern, so other images"),
        (["--folds=2", "--data.val_fraction=0.3"], "--data.val_fraction 0.3 has no effect with --data.folds 2"),
        (["--folds=5"], "class 10 has 4 different images, too few for one in each of 5 folds"),
    ],
)
def test_mistakes_are_told_before_anything_runs(words, sentence, root, refusal):
    Path("arms.yaml").write_text("one:\ntwo: {data.group_pattern: .*}\n")
    assert sentence in refusal("ablate", *words, *SMALL, f"--data.root={root}")
    assert not Path("runs").exists()


def test_a_file_of_the_users_is_not_overwritten(root, refusal):
    folder = Path("runs/ablation_default")
    folder.mkdir(parents=True)
    (folder / "out_of_fold.csv").write_text("mine")
    assert "out_of_fold.csv exists and is not" in refusal("ablate", "--folds=2", *SMALL, f"--data.root={root}")
