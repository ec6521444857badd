import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from datamodules.sources.data_set import DataSet
from datamodules.sources.labelled_split import LabelledSplit
from datamodules.sources.labels_file import LabelsFile
from tests.conftest import SMALL


@pytest.fixture
def root(tmp_path):
    """Images of which only the names count here."""
    root = tmp_path / "root"
    for place in ("1.jpg", "2.png", "sub/3.jpg", "sub/deep/4.jpg", "sub/5.JPG", "other/5.jpg", "x.jpg", "x.png"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(place.encode())
    return root


def write(path, rows, header=("image", "label")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def listed(file, root):
    """The names by label."""
    source = LabelledSplit(LabelsFile(file, root), "train")
    found, _ = source.by_class(source.class_names())
    return {label: [image.name for image in files.images] for label, files in found.items()}


def set_up(root, stage="fit", **options):
    data = ImageFolderDataModule(root, num_workers=0, **options)
    data.setup(stage)
    return data


@pytest.mark.parametrize("place", ["labels.csv", "root/labels.csv", "root/sub/labels.csv"])
@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("1.jpg", "1.jpg"),
        ("1", "1.jpg"),
        ("./1.jpg", "1.jpg"),
        ("sub/3.jpg", "sub/3.jpg"),
        ("sub/3", "sub/3.jpg"),
        ("sub//deep/../3.jpg", "sub/3.jpg"),
        ("sub\\deep\\4.jpg", "sub/deep/4.jpg"),
        ("3.jpg", "sub/3.jpg"),  # without its folder
        ("4", "sub/deep/4.jpg"),
        ("5.JPG", "sub/5.JPG"),
        ("{root}/sub/3.jpg", "sub/3.jpg"),
        ("{root}/sub/deep/4", "sub/deep/4.jpg"),
        ("x.png", "x.png"),
    ],
)
def test_a_cell_may_name_its_image_in_these_ways(root, tmp_path, place, cell, name):
    file = write(tmp_path / place, [(cell.format(root=root), "a"), ("2.png", "b")])
    assert listed(file, root) == {"a": [name], "b": ["2.png"]}


def test_the_files_own_folder_comes_first(root):
    (root / "sub" / "1.jpg").touch()
    rows = [("1.jpg", "a"), ("../1.jpg", "b")]
    assert listed(write(root / "sub" / "labels.csv", rows), root) == {"a": ["sub/1.jpg"], "b": ["1.jpg"]}


def test_names_of_other_unicode_forms_and_cells_that_spreadsheets_cannot_run(root, tmp_path):
    for name in ("cafe\u0301.jpg", "=1+1.jpg", "'=1+1.jpg"):
        (root / name).touch()
    rows = [("caf\u00e9", "a"), ("'=1+1.jpg", "b"), ("''=1+1.jpg", "c")]  # as to_cell spells them
    assert listed(write(tmp_path / "l.csv", rows), root) == {
        "a": ["cafe\u0301.jpg"],
        "b": ["=1+1.jpg"],
        "c": ["'=1+1.jpg"],
    }
    as_they_are = [("=1+1.jpg", "b"), ("2.png", "a"), ("'=1+1.jpg", "c")]
    expected = {"a": ["2.png"], "b": ["=1+1.jpg"], "c": ["'=1+1.jpg"]}
    assert listed(write(tmp_path / "l.csv", as_they_are), root) == expected
    (root / "=1+1.jpg").unlink()
    rows = [("2", "a"), ("'=1+1.jpg", "c")]
    assert listed(write(tmp_path / "l.csv", rows), root) == {"a": ["2.png"], "c": ["'=1+1.jpg"]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("1", "a"), ("9.jpg", "b"), ("sub/1.jpg", "a")], "2 of 3 name '9.jpg' (line 3), 'sub/1.jpg' (line 4), for "
         "which there is no image: correct or remove the rows, or pass another --data.root"),
        ([("1", "a"), ("notes.tif", "b")], "for which there is no image: convert files of other types than .jpg"),
        ([("1", "a"), ("x", "b")], "names for which there are several images ('x' (line 3): x.jpg, x.png)"),
        ([("1", "a"), ("5", "b")], "('5' (line 3): other/5.jpg, sub/5.JPG)"),
        ([("1", "a"), ("../secret.jpg", "b")], "'../secret.jpg' (line 3), outside of that folder"),
        ([("1", "a"), ("sub/../../secret.jpg", "b")], "outside of that folder"),
        ([("1", "a"), ("/etc/secret.jpg", "b")], "'/etc/secret.jpg' (line 3), outside of that folder"),
        ([("1", "a"), ("{root}/../secret.jpg", "b")], "outside of that folder"),
        ([("1", "a"), ("2", "b"), ("1.jpg", "b")], "several labels, a and b in lines 2 and 4, but this project is "
         "single-label"),
        ([("1", "a"), ("2", "b"), ("1.jpg", "a")], "1.jpg twice, in lines 2 and 4: leave one row for each image"),
        ([("1", "a"), ("a/1.jpg", "a"), ("2", "b")], "are called 1.jpg: rename one"),
        ([("1", "a"), ("test/1.jpg", "b")], "has no column of splits, so that all its images would train, but it names "
         "images of val or test, 'test/1.jpg' (line 3)"),
        ([("1", "a"), ("2", "a")], "must have 2 or more labels, but it has only a: add rows"),
    ],
)  # fmt: skip
def test_rows_that_name_no_image_or_one_twice_are_one_sentence(root, tmp_path, rows, message):
    for place in ("a/1.jpg", "test/1.jpg", "notes.tif", "../secret.jpg"):
        (root / place).parent.mkdir(exist_ok=True)
        (root / place).touch()
    file = write(tmp_path / "labels.csv", [(cell.format(root=root), label) for cell, label in rows])
    with pytest.raises(UserError) as caught:
        listed(file, root)
    assert message in str(caught.value)


def test_an_image_is_in_one_split(root, tmp_path):
    file = write(tmp_path / "l.csv", [("1", "a", "train"), ("1", "a", "val")], ("image", "label", "split"))
    with pytest.raises(UserError, match=r"puts .*1\.jpg into train and val in lines 2 and 3"):
        DataSet(root, {"labels": file}).require("val").images()


def test_images_without_a_row_are_said(root, tmp_path, capsys):
    file = write(tmp_path / "labels.csv", [("1", "a"), ("2", "b"), ("3", "a")])
    (root / "test").mkdir()
    (root / "test" / "9.jpg").touch()  # for a prediction
    (root / "loose").symlink_to("nowhere")
    found, rest = DataSet(root, {"labels": file}).require("train").by_class(["a", "b"])
    assert rest.passed_over() == (
        f"1 dangling links ({root / 'loose'}), 5 images without a row ({root}/other/5.jpg, {root}/sub/5.JPG, "
        f"{root}/sub/deep/4.jpg, {root}/x.jpg, {root}/x.png)"
    ).replace("/", os.sep)
    assert [files.passed_over() for files in found.values()] == ["", ""]


def test_a_flat_folder_with_a_table_is_the_same_data_set_as_class_folders(data_root, tmp_path):
    flat, folders = tmp_path / "flat", tmp_path / "folders"
    flat.mkdir()
    rows = []
    for path in data_root.glob("*/*/*.jpg"):
        split, label, name = path.relative_to(data_root).parts
        target = folders / split / label / f"{split}{label}{name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        shutil.copy(path, flat / target.name)
        rows.append((target.stem, label, split))
    file = write(tmp_path / "labels.csv", rows[::-1], ("id", "target", "split"))
    one, two = set_up(folders), set_up(flat, labels=file)
    assert two.classes.names == tuple(map(str, range(12)))
    assert two.fingerprint == one.fingerprint
    for split in ("train", "val"):
        assert list(two.dataset(split).names) == list(one.dataset(split).names)
        assert two.dataset(split).targets.tolist() == one.dataset(split).targets.tolist()
    hub = tmp_path / "hub"  # Hugging Face's files in the splits' folders
    in_split = {split: [row for row in rows if row[2] == split] for split in ("train", "val")}
    for split, its_rows in in_split.items():
        (hub / split).mkdir(parents=True)
        for stem, _, _ in its_rows:
            shutil.copy(flat / f"{stem}.jpg", hub / split)
    of_train = [(f"{stem}.jpg", label) for stem, label, _ in in_split["train"]]
    write(hub / "train" / "metadata.csv", of_train, ("file_name", "label"))
    of_val = [json.dumps({"file_name": f"{stem}.jpg", "label": int(label)}) for stem, label, _ in in_split["val"]]
    (hub / "val" / "metadata.jsonl").write_text("\n".join(of_val))
    assert set_up(hub).fingerprint == one.fingerprint
    (hub / "val" / "metadata.csv").touch()
    with pytest.raises(UserError, match=r"val has metadata\.csv and metadata\.jsonl as labels: remove or rename one"):
        set_up(hub)


def test_names_below_folders_of_split_and_class_are_those_of_class_folders(data_root, tmp_path):
    paths = sorted(data_root.glob("*/*/*.jpg"), key=lambda path: path.name)
    rows = [(path.relative_to(data_root).as_posix(), path.parts[-2], path.parts[-3]) for path in paths]
    file = write(tmp_path / "labels.csv", rows, ("path", "class", "split"))
    assert set_up(data_root, labels=file).fingerprint == set_up(data_root).fingerprint


def test_links_and_groups(root, tmp_path):
    (root / "again.jpg").symlink_to("1.jpg")
    os.link(root / "2.png", root / "hard.png")
    header = ("image", "label", "split", "who")
    rows = [
        ("1", "a", "train", "ann"),
        ("again", "a", "train", "ann"),
        ("2", "b", "train", "bob"),
        ("hard", "b", "val", "x"),
    ]
    data = DataSet(root, {"labels": write(tmp_path / "l.csv", rows, header), "group_column": "who"})
    (train, _), (val, _) = data.require("train").by_class(["a", "b"]), data.require("val").by_class(["b"])
    assert [(image.name, image.group) for image in train["a"].images] == [("1.jpg", "ann")]
    assert [image.name for image in train["a"].again] == ["again.jpg"]
    (shared,) = val["b"].shared_with(train["b"])
    assert os.path.samefile(shared, root / "2.png")
    assert val["b"].shared_with(train["a"]) == []
    rows[0] = ("3", "a", "train", "ann")  # then the link is the image's only name
    data = DataSet(root, {"labels": write(tmp_path / "l.csv", rows, header)})
    assert [image.name for image in data.require("train").by_class(["a"])[0]["a"].images] == ["again.jpg", "sub/3.jpg"]


def test_a_group_in_train_and_val_is_found_in_files_of_splits_as_in_one_file(data_root, tmp_path):
    header = ("file_name", "label", "cow")
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        paths = sorted((data_root / split).glob("*/*.jpg"))
        rows = [(f"{path.parent.name}-{path.name}", path.parent.name, f"{split}-{i}") for i, path in enumerate(paths)]
        for path, (name, *_) in zip(paths, rows, strict=True):
            shutil.copy(path, tmp_path / split / name)
        write(tmp_path / split / "metadata.csv", rows, header)
    set_up(tmp_path, group_column="cow")
    write(tmp_path / "val" / "metadata.csv", [(name, label, "train-5") for name, label, _ in rows], header)
    with pytest.raises(UserError, match=r"images of one group are both in train and in val \(train-5\)"):
        set_up(tmp_path, group_column="cow")
    write(tmp_path / "val" / "metadata.csv", [row[:2] for row in rows], header[:2])  # groups need not be known there
    set_up(tmp_path, group_column="cow")


def test_labelled_test_images_are_tested_and_predicted_unless_there_is_a_test_folder(data_root, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    rows = []
    for path in data_root.glob("*/*/*.jpg"):
        split, label, name = path.relative_to(data_root).parts
        shutil.copy(path, flat / f"{split}{label}{name}")
        rows.append((f"{split}{label}{name}", label, {"val": "test"}.get(split, split)))
    file = write(tmp_path / "labels.csv", rows, ("image", "label", "split"))
    data = set_up(flat, "test", labels=file)
    assert len(data.dataset("test")) == 24
    data.setup("predict")
    assert sorted(data.prediction_names) == sorted(name[:-4] for name, _, split in rows if split == "test")
    shutil.copytree(data_root / "test", flat / "test")
    data.setup("predict")
    assert len(data.prediction_names) == 24
    assert set(data.prediction_names) == {path.stem for path in (data_root / "test").iterdir()}
    assert len(set_up(flat, "test", labels=file).dataset("test")) == 24


def test_metadata_without_labels_is_enough_for_a_prediction_alone(data_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(data_root / "train", root / "train")
    shutil.copytree(data_root / "test", root / "test")
    name, *_ = sorted(path.name for path in (root / "test").iterdir())
    write(root / "test" / "metadata.csv", [(name, "7")], ("file_name", "size"))
    data = set_up(root, "predict")
    assert len(data.prediction_names) == 24  # whether they have a row or not
    with pytest.raises(UserError, match=r"metadata\.csv has no column of labels by a known name"):
        data.setup("test")


def test_a_table_without_training_images_is_refused_for_a_fit(root, tmp_path):
    file = write(tmp_path / "l.csv", [("1", "a", "val"), ("2", "b", "val")], ("image", "label", "split"))
    with pytest.raises(UserError, match=r"l\.csv has no row of train, and .*root has no train either: add rows"):
        set_up(root, labels=file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id;label\n1;a\n", "labels.csv separates its columns by semicolons: separate them by commas"),
        ("\ufeffid,label\r\n1,a\r\n2,\r\n", "has an empty cell in line 3 (label): fill it in or remove the row"),
        ('id,label\n1,"a\nb\n2,b\n', "begins in line 2 has a broken quote"),
        ("id,label\n1,a\n../../x.jpg,b\n", "'../../x.jpg' (line 3), outside of that folder"),
    ],
)
def test_the_command_says_what_is_wrong_with_a_table(text, message, root, run_folder, refusal):
    Path("labels.csv").write_text(text, encoding="utf-8", newline="")
    before = sorted(root.rglob("*"))
    assert message in refusal("fit", *SMALL, f"--data.root={root}", "--data.labels=labels.csv")
    assert sorted(root.rglob("*")) == before


def test_a_column_of_splits_is_one_of_a_table(data_root, refusal):
    message = "--data.split_column names a column of --data.labels, which is not given: name that file too"
    assert message in refusal("fit", *SMALL, f"--data.root={data_root}", "--data.split_column=fold")
