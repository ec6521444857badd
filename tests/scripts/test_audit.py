import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
