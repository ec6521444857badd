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
from scripts.main import main
from scripts.pack import pack, shards
from tests.scripts.pack.odd_names import NAMES, content_of, files, make, members


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
    labels = tmp_path / "labels.csv"
    places = [path.relative_to(root).as_posix() for path in (root / "train").rglob("*.*") if path.suffix != ".txt"]
    rows = [f'"{place}","{place.split("/")[1]}",train\n' for place in places if "/." not in place]
    labels.write_text("".join(["file_name,label,split\n", *reversed(rows)]), encoding="utf-8")
    of_labels = pack(root, tmp_path / "of_labels", labels=str(labels))
    assert files(expected) == files(of_shards) == files(of_zip) == files(of_folder) == files(of_labels)


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


def test_what_shards_lose_is_said(root, tmp_path, capsys):
    os.link(root / NAMES[0], root / "train/cat/twin.jpg")
    pack(root, tmp_path / "out")
    said = capsys.readouterr().out
    assert "train has 1 hard links to other images of it; they become copies in the shards, so folds" in said
    assert f"rows of a prediction: pass --data.template {root}/sample_submission.csv" in said


def test_one_folder_of_unlabelled_images_is_packed(root, tmp_path):
    make(tmp_path / "photos", ["test/later/2.jpg"])
    out = pack(tmp_path / "photos", tmp_path / "out")
    assert members(out / "test-000000.tar") == ["later/2.jpg"]
