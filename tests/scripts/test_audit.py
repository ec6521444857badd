import errno
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from scripts import audit as module
from scripts.main import main


@pytest.fixture
def copy(data_root, tmp_path):
    """A data set to change."""
    return Path(shutil.copytree(data_root, tmp_path / "root"))


def audit(root, capsys, *options):
    with pytest.raises(SystemExit) as caught:
        main(["audit", f"--data.root={root}", "--data.num_workers=0", "--json=report.json", *options])
    return caught.value.code, json.loads(Path("report.json").read_text()), capsys.readouterr().out


def first(folder):
    return sorted(folder.iterdir())[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_counts_and_sizes_of_a_sound_data_set(workers, data_root, run_folder, capsys):
    code, report, output = audit(data_root, capsys, f"--data.num_workers={workers}")
    assert code == 0
    assert "nothing would stop a run" in output
    assert {name: split["images"] for name, split in report["splits"].items()} == {"train": 48, "val": 24, "test": 24}
    assert report["splits"]["train"]["classes"] == {str(label): 4 for label in range(12)}
    assert report["splits"]["test"]["classes"] == {}
    assert report["splits"]["val"]["imbalance"] == 1
    assert report["splits"]["val"]["widths"] == [36, 36, 36]
    assert report["splits"]["val"]["modes"] == {"RGB": 24}
    assert (report["unreadable"], report["duplicates"], report["stops"], report["class_differences"]) == (
        [],
        [],
        [],
        {},
    )


def test_finds_pictures_that_come_twice_whatever_their_files(copy, run_folder, capsys):
    leaked = first(copy / "train" / "1")
    shutil.copy(leaked, copy / "val" / "1" / "again.jpg")
    Image.open(leaked).save(copy / "test" / "lossless.png")  # other bytes, equal pixels
    torn = first(copy / "train" / "2")
    shutil.copy(torn, copy / "train" / "3" / "torn.jpg")
    code, report, _ = audit(copy, capsys)
    assert {frozenset(group["paths"]) for group in report["duplicates"]} == {
        frozenset(map(str, (leaked, copy / "val" / "1" / "again.jpg", copy / "test" / "lossless.png"))),
        frozenset(map(str, (torn, copy / "train" / "3" / "torn.jpg"))),
    }
    groups = sorted(report["duplicates"], key=lambda group: -len(group["paths"]))
    assert [(group["splits"], group["classes"]) for group in groups] == [
        (["train", "val", "test"], ["1"]), (["train"], ["2", "3"]),
    ]  # fmt: skip
    assert report["warnings"] == [
        "pictures in more than one split, which inflates the measured accuracy: 1",
        "pictures in more than one class: 1",
        "pictures more than once in one split: 1",
    ]
    (stop,) = report["stops"]
    assert "must name each of the 25 images once, but it does not name lossless.png" in stop  # as predict would say
    assert code == 1


def test_exif_and_modes_and_what_is_passed_over(copy, run_folder, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 40)).save(copy / "val" / "0" / "turned.jpg", exif=exif)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(copy / "val" / "0" / "deep.png")
    (copy / "val" / "0" / "notes.txt").touch()
    (copy / "val" / "0" / "gone.jpg").symlink_to("nowhere")
    code, report, output = audit(copy, capsys)
    val = report["splits"]["val"]
    assert code == 0
    assert val["rotated"] == [str(copy / "val" / "0" / "turned.jpg")]
    assert (val["widths"], val["heights"]) == ([8, 36, 40], [8, 36, 50])  # upright
    assert val["modes"] == {"RGB": 25, "I;16": 1}
    assert f"val: passed over 1 of other types (1 .txt), 1 dangling links ({copy}/val/0/gone.jpg)" in output


def test_differing_classes_stop_a_run_and_are_shown(copy, run_folder, capsys):
    (copy / "val" / "5").rename(copy / "val" / "five")
    code, report, output = audit(copy, capsys)
    assert code == 1
    assert report["class_differences"] == {"val": {"lacks": ["5"], "unknown": ["five"]}}
    assert "would stop a run: " in output
    assert "it lacks 5 and also has five" in output
    (copy / "val" / "five").rename(copy / "val" / "5 ")
    assert "val lacks: '5'\nval unknown classes: '5 '\n" in audit(copy, capsys)[2]


def test_folders_that_nothing_reads_are_warned_of(copy, run_folder, capsys):
    (copy / "Val").mkdir()
    (copy / "test" / "other").mkdir()
    code, report, _ = audit(copy, capsys)
    assert code == 0
    assert report["warnings"] == [
        "no command reads the folders Val: train, val and test are read",
        "the folders of test are not classes (other): predict reads them, test does not",
    ]


def test_training_images_in_test_are_told_as_test_would(copy, run_folder, capsys):
    shutil.rmtree(copy / "test")
    (copy / "test").symlink_to("train")
    (copy / "sample_submission.csv").unlink()
    code, report, _ = audit(copy, capsys)
    assert code == 1
    (stop,) = report["stops"]
    assert stop.startswith("links make test share 48 of its files with train (")


def test_what_a_fit_would_hold_out_is_warned_of(copy, run_folder, capsys):
    (copy / "val").rename(copy / "valid")
    for split in ("train", "valid"):
        shutil.copytree(copy / split / "7", copy / split / "07 ")
        (copy / split / "7").rename(copy / split / "07")
    code, report, _ = audit(copy, capsys)
    assert code == 0
    assert report["warnings"] == [
        "pictures in more than one class: 4",
        "pictures more than once in one split: 4",
        f"no {copy}/val: 10% of each class, 13 images, are held out of {copy}/train for validation; if {copy}/valid "
        f"is meant, rename it to {copy}/val",  # at least one of each class
        "train: classes that look alike: '07', '07 '",
        "no command reads the folders valid: train, val and test are read",
    ]


def test_a_class_whose_name_is_no_utf_8(copy, run_folder, capsys):
    for split in ("train", "val"):
        os.rename(copy / split / "5", os.fsencode(copy / split) + b"/caf\xe9")
    code, report, _ = audit(copy, capsys)
    assert code == 0
    assert report["splits"]["val"]["classes"]["caf\udce9"] == 2


def test_the_function_returns_what_it_found(copy, capsys):
    shutil.rmtree(copy / "val" / "3")
    findings = module.audit(str(copy), num_workers=0)
    assert findings.splits["train"]["images"] == 48
    assert any("it lacks 3" in sentence for sentence in findings.stops)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="no folder at nowhere"):
        module.audit(root="nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.root=nowhere"], "there is no folder at nowhere (--data.root)"),
        ([], "the following arguments are required: --data.root"),
        (["--data.root=.", "--jsn=x"], "unrecognized arguments: --jsn=x"),
        (["--data.root=.", "--json=nowhere/x"], "--json"),
    ],
)
def test_bad_options_get_one_sentence_and_exit_2(options, message, run_folder, refusal):
    assert message in refusal("audit", *options)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_files_are_not_blamed_for_what_the_machine_lacks(number, data_root, monkeypatch, refusal):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("datamodules.images.read.Image.open", fail)
    error = refusal("audit", f"--data.root={data_root}", "--data.num_workers=0")
    assert error.startswith("cbam100: error: out of memory or file handles while reading")
    assert os.strerror(number) in error


def same_data_set(one, two):
    for data in (one, two):
        data.setup("fit")
    assert one.classes.names == two.classes.names
    assert one.fingerprint == two.fingerprint
    assert list(one.dataset("train").names) == list(two.dataset("train").names)


@pytest.mark.parametrize("form", ["splits", "one folder", "hub", "table"])
def test_the_labels_that_it_writes_read_back_as_the_same_data_set(form, copy, run_folder, capsys):
    options, root = {}, copy
    if form == "one folder":
        root = copy / "train"
        for other in ("val", "test"):
            shutil.rmtree(copy / other)
    else:
        (root / "train" / "5").rename(root / "train" / "=5")  # a cell that a spreadsheet would run
        (root / "val" / "5").rename(root / "val" / "=5")
    if form == "hub":
        for split in ("train", "val"):
            rows = [(f"{path.parent.name}-{path.name}", path) for path in sorted((root / split).rglob("*.jpg"))]
            lines = [json.dumps({"file_name": name, "label": path.parent.name}) for name, path in rows]
            for name, path in rows:
                path.rename(root / split / name)
            for folder in [path for path in (root / split).iterdir() if path.is_dir()]:
                folder.rmdir()
            (root / split / "metadata.jsonl").write_text("\n".join(lines))
    if form == "table":
        first(root / "train" / "3").rename(root / "loose.jpg")
        audit(copy, capsys, "--labels=its_own.csv")
        table = Path("its_own.csv").read_text() + "loose.jpg,3,train\n"
        Path("mine.csv").write_text(table)
        options = {"labels": "mine.csv"}
    (root / "notes.txt").touch()
    words = [f"--data.{name}={value}" for name, value in options.items()]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    code, report, _ = audit(root, capsys, "--labels=labels.csv", *words)
    assert (code, report["stops"]) == (0, [])
    assert report["splits"]["train"]["images"] == 48
    assert report["unread_folders"] == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert Path("labels.csv").read_text().startswith("file_name,label,split\n")
    again = ImageFolderDataModule(str(root), labels="labels.csv")
    same_data_set(ImageFolderDataModule(str(root), **options), again)
    code, report, _ = audit(root, capsys, "--data.labels=labels.csv", "--labels=again.csv")
    assert code == 0
    assert Path("again.csv").read_bytes() == Path("labels.csv").read_bytes()


def test_labels_of_tests_and_of_unreadable_images_are_written_too(copy, run_folder, capsys):
    """Which images are used is a run's decision."""
    shutil.rmtree(copy / "test")
    shutil.copytree(copy / "val", copy / "test")
    (copy / "sample_submission.csv").unlink()
    for number, path in enumerate(sorted((copy / "test").rglob("*.jpg"))):
        path.rename(path.with_name(f"test{number}.jpg"))
    broken = first(copy / "train" / "1")
    broken.write_bytes(b"no image")
    code, report, _ = audit(copy, capsys, "--labels=labels.csv")
    assert code == 1
    assert report["stops"] == ["unreadable images: 1, see --data.on_bad_image"]
    rows = Path("labels.csv").read_text().splitlines()[1:]
    assert len(rows) == len(set(rows)) == 48 + 24 + 24
    assert f"train/1/{broken.name},1,train" in rows
    data = ImageFolderDataModule(str(copy), labels="labels.csv")
    data.setup("test")
    assert len(data.dataset("test")) == 24


@pytest.mark.parametrize("form", ["train", "train.tar"])
def test_what_a_run_refuses_is_described_whatever_its_form(form, data_root, run_folder, capsys):
    root = run_folder / "root"
    shutil.copytree(data_root / "train" / "1", root / "train" / "1")
    broken = first(root / "train" / "1")
    broken.write_bytes(b"no image")
    if form == "train.tar":
        with tarfile.open(root / form, "w") as archive:
            archive.add(root / "train", ".")
        shutil.rmtree(root / "train")
    code, report, _ = audit(root, capsys)
    assert code == 1
    assert report["splits"]["train"]["images"] == 4
    (unreadable,) = report["unreadable"]
    assert unreadable["path"] == str(root / form / "1" / broken.name)
    assert any("2 or more classes" in sentence for sentence in report["stops"])


def test_what_is_wrong_with_a_table_is_told_as_a_run_would(copy, run_folder, capsys):
    shutil.rmtree(copy / "test")
    audit(copy, capsys, "--labels=labels.csv")
    table = Path("labels.csv").read_text()
    Path("labels.csv").write_text(table.replace(",3,val", ",4,val"))
    code, report, _ = audit(copy, capsys, "--data.labels=labels.csv")
    assert code == 1
    assert report["class_differences"] == {"val": {"lacks": ["3"], "unknown": []}}
    assert "labels.csv (val) must have the same 12 classes as labels.csv (train), but it lacks 3" in report["stops"][0]
    first(copy / "train" / "3").unlink()
    code, report, _ = audit(copy, capsys, "--data.labels=labels.csv")
    (stop,) = [sentence for sentence in report["stops"] if "there is no image" in sentence]
    assert "1 of 72 name 'train/3/" in stop
    Path("labels.csv").write_text(table + "train/1/x.jpg,,train\n")
    code, report, _ = audit(copy, capsys, "--data.labels=labels.csv")
    assert (code, len(report["stops"])) == (1, 1)
    assert "has an empty cell in line 74 (label)" in report["stops"][0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels=labels.txt"], "--labels must end in .csv, got labels.txt"),
        (["--labels=mine.csv"], "mine.csv exists, and labels may have been corrected in it, so it is not overwritten"),
        (["--labels={root}/train/labels.csv"], "lies in {root}/train, whose files are data: choose another --labels"),
        (["--labels={root}/l.csv", "--data.labels=mine.csv"], "l.csv lies in {root}, whose files are data"),
        (["--labels=nowhere/labels.csv"], "choose another --labels"),
        (["--labels=l.csv", "--data.root={root}/test"], "there are no labelled images below {root}/test"),
    ],
)
def test_no_file_of_the_user_is_overwritten_by_labels(words, message, data_root, run_folder, refusal):
    mine = "file_name,label,split\n1.jpg,corrected,train\n"
    Path("mine.csv").write_text(mine)
    words = [f"--data.root={data_root}", "--data.num_workers=0", *(word.format(root=data_root) for word in words)]
    assert message.format(root=data_root) in refusal("audit", *words)
    assert Path("mine.csv").read_text() == mine
    assert [path.name for path in run_folder.iterdir()] == ["mine.csv"]
