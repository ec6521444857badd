"""What cannot be packed whole is refused in a sentence, and leaves nothing that passes for complete."""

import os
import tarfile
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from datamodules.images.find import ImageFile
from scripts.pack import pack, shards
from tests.scripts.pack.odd_names import NAMES, content_of, files, members


def test_what_the_disk_makes_of_a_shard_is_compared(root, tmp_path, monkeypatch):
    class Disk:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data.replace(content_of(NAMES[1])[:32], bytes(32)))

    write = shards._write
    monkeypatch.setattr(shards, "_write", lambda members, file, advance: write(members, file and Disk(file), advance))
    with pytest.raises(UserError, match=r"train-000000.tar does not hold what was written to it: check the disk"):
        pack(root, tmp_path / "out")
    assert files(tmp_path / "out").keys() <= {".lock"}


def test_images_that_cannot_be_read_are_named_and_nothing_is_written(root, tmp_path, monkeypatch, refusal):
    def size(path):
        return -1 if path.endswith(("cat/1.jpg", "a b.jpg")) else os.path.getsize(path)

    monkeypatch.setattr(shards.location, "size", size)
    error = refusal("pack", "--data.root", root, "--output", tmp_path / "out")
    assert f"2 images of train cannot be read, {root}/train/10/a b.jpg, {root}/train/cat/1.jpg: correct" in error
    assert not (tmp_path / "out").exists()


def test_one_that_fails_or_changes_under_the_work_leaves_the_pack_incomplete(root, tmp_path, monkeypatch, refusal):
    out = pack(root, tmp_path / "out", shard_mb=0.012)
    last = root / "test/later/2.jpg"
    (out / "test-000000.tar").unlink()

    def content(path):
        if path == str(last):
            raise PermissionError(13, "Permission denied")
        return path

    monkeypatch.setattr(shards.location, "open_content", content)
    error = refusal("pack", "--data.root", root, "--output", out, "--shard_mb=0.012")
    assert f"cannot read {last} (Permission denied): make it readable or remove it" in error
    assert not {"SHA256SUMS", "test-000000.tar"} & files(out).keys()
    monkeypatch.setattr(shards.location, "open_content", lambda path: path)
    monkeypatch.setattr(shards.location, "size", lambda path: os.path.getsize(path) - (path == str(last)))
    size = len(content_of("test/later/2.jpg"))
    assert f"{last} changed from {size - 1:,} to {size:,} bytes" in refusal(
        "pack", "--data.root", root, "--output", out, "--shard_mb=0.012"
    )


def test_names_that_a_reader_would_not_find_are_refused(monkeypatch):
    monkeypatch.setattr(shards.location, "size", lambda path: 1)
    monkeypatch.setattr("os.access", lambda path, mode: True)
    names = ("a/../../b.jpg", "/a/b.jpg", "a/.b/c.jpg", "a//b.jpg", "a\\b.jpg", "a/b.gif", "a/c.jpg", "a/c.jpg")
    with pytest.raises(UserError, match="7 images of val have names that a shard cannot have") as caught:
        shards.plan_shards("val", [ImageFile(name, f"{i}") for i, name in enumerate(names)], 1000)
    assert ", 0, 1, 2, 3, 4, 5, 7: each must come once" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--output=root/train/cat", "root/train/cat lies in root/train"),
        ("--output=root/test/shards", "root/test/shards lies in root/test"),
        ("--output=root", "holds files that are not shards by an earlier pack, sample_submission.csv, test, train"),
        ("--output=mine", "holds files that are not shards by an earlier pack, SHA256SUMS, train-000000.tar: choose"),
        ("--output=sums", "holds files that are not shards by an earlier pack, SHA256SUMS: choose a new or empty"),
        ("--output=root/sample_submission.csv", "is a file: choose another --output"),
        ("--output=", "--output is empty"),
        ("--output=out --shard_mb=0", "--shard_mb must be finite and above 0, got 0.0"),
        ("--output=out --shard_mb=nan", "--shard_mb must be finite and above 0, got nan"),
        ("--output=out --data.root=nowhere", "there is no folder at nowhere (--data.root)"),
        ("--output=out --data.root=sums", "there is no folder sums/train"),
    ],
)
def test_what_is_refused_changes_nothing(options, sentence, root, tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "sums"):
        Path(folder).mkdir()
        Path(folder, "SHA256SUMS").write_text("mine")
    with tarfile.open("mine/train-000000.tar", "w") as archive:
        archive.add("root/train/cat/1.jpg")
    before = files(tmp_path)
    assert sentence in refusal("pack", "--data.root=root", *options.split())
    assert files(tmp_path) == before
    assert not Path("out").exists()


def test_a_full_disk_is_told_before_it_is_full(root, tmp_path, monkeypatch):
    free = shards.tarfile.RECORDSIZE
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": free}))
    with pytest.raises(UserError, match=r"the shards need 0 MB, but only 0 MB are free at "):
        pack(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_that_would_hide_that_splits_share_images_are_refused(root, tmp_path):
    (root / "val").mkdir()
    (root / "val" / "cat").symlink_to("../train/cat")
    (root / "val" / "9").symlink_to("../train/9")
    with pytest.raises(UserError, match="links make val share 5 of its files with train"):
        pack(root, tmp_path / "out")


def test_a_class_without_an_image_is_refused_as_a_run_would(root, tmp_path):
    (root / "train" / "empty").mkdir()
    with pytest.raises(UserError, match="but there is none in empty"):
        pack(root, tmp_path / "out")


def test_images_that_are_tested_and_others_that_are_predicted_are_refused(root, tmp_path):
    """Shards hold one test, and a prediction of them must be that of the data set."""
    table = "file_name,label,split\n{}train/cat/10.jpg,cat,test\ntrain/10/a b.jpg,10,test\n"
    rows = "train/cat/1.jpg,cat,train\ntrain/dög/ø.jpg,10,train\n"
    (tmp_path / "labels.csv").write_text(table.format(rows), encoding="utf-8")
    with pytest.raises(UserError, match=r"a prediction is of .*root.test, but a test is of other images, .*\(test\)"):
        pack(root, tmp_path / "out", labels=str(tmp_path / "labels.csv"))
    assert not (tmp_path / "out").exists()
    for name, label in (("1.jpg", "cat"), ("later/2.jpg", "10")):
        rows += f"test/{name},{label},test\n"
    (tmp_path / "labels.csv").write_text(f"file_name,label,split\n{rows}", encoding="utf-8")
    out = pack(root, tmp_path / "out", labels=str(tmp_path / "labels.csv"))
    assert members(out / "test-000000.tar") == ["10/later/2.jpg", "cat/1.jpg"]
