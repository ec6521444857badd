"""Shards follow from names and bytes, hold what the folder holds, and are complete or not there."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from datamodules.images.find import ImageFile
from scripts.main import main
from scripts.pack import pack, shards

NAMES = (
    "train/cat/1.jpg",
    "train/cat/2.PNG",
    "train/cat/10.jpg",  # after 2
    f"train/cat/{'deep/' * 30}{'n' * 120}.jpg",  # longer than USTAR allows
    "train/dög/ø.jpg",
    "train/dög/" + os.fsdecode(b"caf\xe9.jpg"),
    "train/10/a b.jpg",
    "train/9/'\n.webp",
    "test/later/2.jpg",
    "test/1.jpg",
)
PASSED_OVER = ("train/cat/notes.txt", "train/cat/.hidden.jpg", "test/list.csv", "sample_submission.csv")


def content_of(name):
    """Bytes that no other name has; 100 to 2600 of them, so that some end inside a block."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return digest * (4 + digest[0] % 78)


def make(root, names=(*NAMES, *PASSED_OVER)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(name))
    return root


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # for indexes
    return make(tmp_path / "root")


def members(path):
    with tarfile.open(path, encoding="utf-8") as archive:
        return [info.name for info in archive]


def test_another_program_finds_the_images_and_nothing_else(root, tmp_path, capsys):
    before = files(root)
    main(["pack", f"--data.root={root}", f"--output={tmp_path / 'out'}", "--shard_mb=0.012"])
    said = capsys.readouterr().out
    assert files(root) == before
    extracted = tmp_path / "extracted"
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path, encoding="utf-8") as archive:
            for info in archive:
                assert (info.mtime, info.mode, info.uid, info.gid, info.uname, info.gname) == (0, 0o644, 0, 0, "", "")
            archive.extractall(extracted / path.name.partition("-")[0], filter="data")
    assert files(extracted) == {name: content_of(name) for name in NAMES}
    assert f"{root}/train: passed over 1 hidden, 1 of other types (1 .txt)\n" in said
    assert f"{root}/test: passed over 1 of other types (1 .csv)\n" in said
    assert "train: 8 images in " in said
    assert "test: 2 images in 1 shard, 0.0 MB\n" in said
    assert said.endswith(f"to train from them: cbam100 fit --data.root {tmp_path / 'out'}\n")


def test_members_are_in_the_order_of_classes_and_names(root, tmp_path):
    out = pack(root, tmp_path / "out")
    in_order = ["9/'\n.webp", "10/a b.jpg", "cat/1.jpg", "cat/2.PNG", "cat/10.jpg", NAMES[3].removeprefix("train/")]
    assert members(out / "train-000000.tar") == [*in_order, NAMES[5].removeprefix("train/"), "dög/ø.jpg"]
    assert members(out / "test-000000.tar") == ["1.jpg", "later/2.jpg"]


def test_shards_follow_from_names_and_bytes(root, tmp_path):
    other = make(tmp_path / "other", [*reversed(NAMES)])
    for number, path in enumerate(sorted(other.rglob("*"))):
        os.chmod(path, 0o700)
        os.utime(path, (number, number))
    pack(root, tmp_path / "one", shard_mb=0.015)
    pack(str(other), str(tmp_path / "two"), shard_mb=0.015)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) > 3


def test_shards_do_not_depend_on_the_form(root, tmp_path):
    (root / NAMES[5]).unlink()  # which no zip can spell
    shutil.rmtree(root / "test")
    expected = pack(root, tmp_path / "expected")
    of_shards = pack(pack(root, tmp_path / "small", shard_mb=0.012), tmp_path / "of_shards")
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "train.zip", "w") as archive:
        for path in sorted((root / "train").rglob("*"), reverse=True):
            archive.write(path, f"photos/{path.relative_to(root / 'train')}")
    of_zip = pack(tmp_path / "zipped", tmp_path / "of_zip")
    of_folder = pack(root / "train", tmp_path / "of_folder")  # without splits
    assert files(expected) == files(of_shards) == files(of_zip) == files(of_folder)


def test_sums_are_those_that_sha256sum_writes(root, tmp_path):
    out = pack(root, tmp_path / "out", shard_mb=0.02)
    tars = [*sorted(out.glob("train-*.tar")), out / "test-000000.tar"]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in tars]
    assert (out / "SHA256SUMS").read_text() == "".join(lines)


def test_a_shard_is_as_large_as_allowed_and_an_image_larger_than_that_has_its_own(tmp_path):
    root, limit = tmp_path / "root", 30 * 1024
    for label in "ab":
        (root / "train" / label).mkdir(parents=True)
        for number in range(20):
            size = 50_000 if (label, number) == ("a", 10) else 2000  # with header and padding 512 + 2048
            (root / "train" / label / f"{number}.jpg").write_bytes(bytes(size))
    out = pack(root, tmp_path / "out", shard_mb=limit / 1e6)
    counts = [len(members(path)) for path in sorted(out.glob("*.tar"))]
    # tarfile writes records of 10,240 bytes, and 1024 bytes for the comment and 1024 zeros besides the members.
    most = (limit - 2 * 1024) // (512 + 2048)
    assert counts == [10, 1, most, most, 29 - 2 * most]
    assert {path.stat().st_size for path in out.glob("*.tar")} == {limit, 61_440, 20_480}


def test_the_end_of_a_pack_is_repeated_and_no_more(root, tmp_path, monkeypatch):
    out = pack(root, tmp_path / "out", shard_mb=0.012)
    whole = files(out)
    (out / "train-000001.tar").unlink()
    damaged = bytearray(whole["train-000000.tar"])
    damaged[5000] ^= 1
    (out / "train-000000.tar").write_bytes(damaged)
    (out / ".train-000002.tar.abc.part").write_bytes(b"left by a process that was killed")
    (out / "SHA256SUMS").unlink()
    written = []
    atomic_file = shards.atomic_file
    monkeypatch.setattr(shards, "atomic_file", lambda path: written.append(path.name) or atomic_file(path))
    pack(root, out, shard_mb=0.012)
    assert files(out) == whole
    assert written == ["train-000000.tar", "train-000001.tar"]


def test_an_earlier_pack_is_replaced(root, tmp_path):
    out = pack(root, tmp_path / "out", shard_mb=0.012)
    pack(root, out)
    assert files(out) == files(pack(root, tmp_path / "new"))
    assert len(files(out)) == 3
    with pytest.raises(UserError, match=r"test-000000.tar is an input, so it is not overwritten: choose another"):
        pack(out, out, shard_mb=0.012)
    Path(tmp_path / "linked").mkdir()
    for path in out.glob("*.tar"):
        (tmp_path / "linked" / path.name).symlink_to(path)
    with pytest.raises(UserError, match="is an input"):
        pack(out, tmp_path / "linked")


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_kill_leaves_whole_shards_and_the_command_completes_them(root, tmp_path):
    out = tmp_path / "out"
    kill = """
import os, signal, sys
from scripts.pack import pack, shards
def killed(*_):
    for _ in range(2):
        yield
    os.kill(os.getpid(), signal.SIGKILL)
steps = killed()
read_back = shards._read_back
shards._read_back = lambda *options: next(steps, None) or read_back(*options)
pack(sys.argv[1], sys.argv[2], shard_mb=0.012)
"""
    done = subprocess.run([sys.executable, "-c", kill, root, out], check=False)
    assert done.returncode == -9
    expected = files(pack(root, tmp_path / "expected", shard_mb=0.012))
    left = files(out)
    visible = {name: data for name, data in left.items() if not name.startswith(".")}
    assert visible == {name: expected[name] for name in ("train-000000.tar", "train-000001.tar")}
    assert any(name.endswith(".part") for name in left)
    pack(root, out, shard_mb=0.012)
    assert files(out) == expected


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


def test_what_shards_lose_is_said(root, tmp_path, capsys):
    os.link(root / NAMES[0], root / "train/cat/twin.jpg")
    pack(root, tmp_path / "out")
    said = capsys.readouterr().out
    assert "train: hard links to other images of it, which are copies in shards" in said
    assert "where images are held out: 1\n" in said
    assert f"rows of a prediction: pass --data.template {root}/sample_submission.csv" in said


def test_one_folder_of_unlabelled_images_is_packed(root, tmp_path):
    make(tmp_path / "photos", ["test/later/2.jpg"])
    out = pack(tmp_path / "photos", tmp_path / "out")
    assert members(out / "test-000000.tar") == ["later/2.jpg"]


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
        ("--output=out --shard_mb=0", "--shard_mb must be above 0, got 0.0"),
        ("--output=out --shard_mb=nan", "--shard_mb must be above 0, got nan"),
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
