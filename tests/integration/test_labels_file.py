"""What follows a fit whose labels are in a file, from settings that were stored: a report, and an export."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from scripts.export import check, export
from scripts.export.fresh_process import FileAnswers
from scripts.main import main
from scripts.report import report
from tests.conftest import SMALL


@pytest.fixture
def labelled(data_root, tmp_path):
    """The training images in one folder, and a file of their labels with columns of its own."""
    folder, labels = tmp_path / "images", tmp_path / "labels.csv"
    folder.mkdir()
    rows = [["photo", "kind"]]
    for image in sorted((data_root / "train").rglob("*.jpg")):
        shutil.copy(image, folder / image.name)
        rows.append([image.name, image.parent.name])
    with open(labels, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder, labels


@pytest.fixture
def in_this_process(monkeypatch):
    """Checks exports here, where the network is narrow, with options as the other process would get them."""

    def answers(path, root, options):
        written = path.with_name("answers.npz")
        check.main(path, root, written, json.loads(json.dumps(options)))
        with np.load(written) as arrays:
            return FileAnswers(arrays["probabilities"], **json.loads(str(arrays["facts"])))

    monkeypatch.setattr("scripts.export.command.answers_in_fresh_process", answers)


def test_a_run_reports_and_exports(labelled, run_folder, in_this_process):
    folder, labels = labelled
    columns = {"image_column": "photo", "label_column": "kind"}
    words = [f"--data.{name}={value}" for name, value in {"root": folder, "labels": labels, **columns}.items()]
    main(["fit", *SMALL, *words, "--trainer.max_epochs=1", "--model.restart_epochs=1"])
    labels.rename("moved.csv")
    page = report("runs/default/version_0", labels="moved.csv").read_text()
    assert "10% of each class, 12 images, are held out of moved.csv for validation." in page
    for name, kind in csv.reader(Path("moved.csv").read_text().splitlines()[1:]):  # as folders
        target = folder.parent / "folders" / "train" / kind / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, target)
    as_folders = report("runs/default/version_0", root=folder.parent / "folders", labels="").read_text()
    assert "12 images, are held out of" in as_folders
    exported = export(
        "runs/default/version_0/model.safetensors", folder, format="safetensors", precision="fp32", output="out",
        num_workers=0, labels="moved.csv", **columns,
    )  # fmt: skip
    assert exported.comparison.images == 12  # one of each class is held out
