import hashlib
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from scripts.demo.make_demo_data import main, make_demo_data

FEW = {"num_classes": 3, "train_images": 2, "val_images": 1, "test_images": 2, "size": 32}


def content(root):
    return {p.relative_to(root): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


def test_one_seed_gives_the_same_files_and_another_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_demo_data(tmp_path / name, seed=seed, **FEW)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


def test_layout(tmp_path):
    root = tmp_path / "data"
    make_demo_data(root, **FEW)
    assert sorted(p.name for p in (root / "train").iterdir()) == ["0", "1", "2"]
    assert len(list(root.glob("train/*/*.jpg"))) == 6
    assert len(list(root.glob("val/*/*.jpg"))) == 3
    header, *rows = (root / "sample_submission.csv").read_text().splitlines()
    listed = [row.split(",")[0] for row in rows]
    assert header == "image_name,pred_label"
    assert sorted(listed) == sorted(p.stem for p in (root / "test").iterdir())
    assert listed != sorted(listed)


def test_images_of_a_class_differ(tmp_path):
    root = tmp_path / "data"
    make_demo_data(root, **FEW)
    first, second = (np.asarray(Image.open(path), int) for path in sorted((root / "train" / "0").iterdir()))
    assert np.abs(first - second).mean() > 5


def test_files_of_others_stay(tmp_path, monkeypatch, capsys):
    for folder in ("photos", ".new.part"):  # the second is where new would be drawn
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.txt").touch()
    for folder in ("photos", "new"):
        monkeypatch.setattr(sys, "argv", ["make_demo_data", "--output", str(tmp_path / folder)])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "already holds other files: choose another --output" in (error := capsys.readouterr().err)
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".new.part", "mine.txt", "mine.txt", "photos"]


def test_an_interrupted_drawing_is_done_anew_through_a_link_too(tmp_path):
    part = tmp_path / ".data.part"
    (part / "train").mkdir(parents=True)
    (part / "demo_data.json").write_text(json.dumps({}))
    (tmp_path / "link").symlink_to("data")
    make_demo_data(tmp_path / "link", **FEW)
    assert sorted(os.listdir(tmp_path)) == ["data", "link"]
    assert len(list((tmp_path / "data").glob("train/*/*.jpg"))) == 6


def test_a_finished_data_set_is_left_as_it_is(tmp_path):
    root = tmp_path / "data"
    make_demo_data(root, **FEW)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make_demo_data(root, **FEW)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
