import json
import os
import stat
import zipfile

import pytest

from datamodules.files import atomic_file as atomic_module
from datamodules.files.atomic_file import atomic_file, write_bytes
from datamodules.files.errors import UserError
from datamodules.files.own_files import kind_of

OLD, NEW = (f"image_name,pred_label\n{name},cat\n".encode() for name in ("old", "new"))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")

    def fail():
        with atomic_file(target) as temporary:
            assert temporary.parent == tmp_path
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.csv"]


def test_a_finished_write_replaces_with_the_usual_permissions(tmp_path):
    target = tmp_path / "x.csv"
    target.write_bytes(OLD)
    with atomic_file(target) as temporary:
        temporary.write_bytes(NEW)
        assert target.read_bytes() == OLD
    plain = tmp_path / "plain"
    plain.touch()
    assert target.read_bytes() == NEW
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*absent/x\.csv \(No such file"),
        atomic_file(tmp_path / "absent" / "x.csv"),
    ):
        pass


def png(software):
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR............tEXtSoftware\0" + software


def packed(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("x.csv", OLD, b"name,label\na,b\n"),
        ("x.csv", OLD, b"image_name,label_1,probability_1\n"),  # ours, but another one
        ("x.csv.partial", OLD, b"half of a download"),
        ("x.png", png(b"cbam100"), png(b"Matplotlib version 3.10.0")),
        ("x.html", b'<head><meta name="generator" content="cbam100">', b"<head><title>cbam100</title>"),
        ("x.md", b"`cbam100 ablate --vary a=1,2`\n", b"# Notes on cbam100 ablate\n"),
        ("x.json", json.dumps({"versions": {}, "events": []}).encode(), json.dumps({"events": []}).encode()),
        ("x.txt", json.dumps({"splits": {}, "stops": [], "duplicates": []}).encode(), b"notes"),
        ("x.json", json.dumps({"benchmark": 1, "machine": 1, "rows": []}).encode(), b"[" * 100_000),
    ],
)
def test_a_file_that_is_not_of_the_same_making_stays(name, ours, theirs, tmp_path):
    path = tmp_path / name
    path.touch()  # an empty one is nobody's loss
    for _ in range(2):
        write_bytes(path, ours)
    assert path.read_bytes() == ours
    path.write_bytes(theirs)
    with pytest.raises(UserError, match=f"{path} exists and is not .* overwritten: move it away"):
        write_bytes(path, ours)
    assert path.read_bytes() == theirs
    assert os.listdir(tmp_path) == [name]


def test_an_archive_is_known_by_what_it_holds(tmp_path):
    path = tmp_path / "x.zip"
    ours, ours_with_more = packed(tmp_path / "1", "x.csv"), packed(tmp_path / "2", "x.csv", "notes.txt")
    write_bytes(path, ours)
    write_bytes(path, ours)
    path.write_bytes(ours_with_more)
    with pytest.raises(UserError, match="is not overwritten: move it away"):
        write_bytes(path, ours)
    assert path.read_bytes() == ours_with_more


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.safetensors", b"a text, whose first bytes are no length"),
        ("x.safetensors", (3).to_bytes(8, "little") + b"[1]"),
        ("x.ckpt", b"a text"),
        ("x.zip", b"a text"),
        ("x.npz", b"a text"),
    ],
)
def test_a_strangers_file_is_of_no_kind(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name) is None


def test_an_archive_without_a_pickle_is_no_checkpoint(tmp_path):
    packed(tmp_path / "x.ckpt", "notes.txt")
    assert kind_of(tmp_path / "x.ckpt") is None


def test_a_folder_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "x.csv")
    (tmp_path / "y.csv").mkdir()
    for name in ("x.csv", "y.csv"):
        with pytest.raises(UserError, match="is not overwritten: move it away"):
            write_bytes(tmp_path / name, NEW)
    assert sorted(os.listdir(tmp_path)) == ["x.csv", "y.csv"]
    assert not (tmp_path / "x.csv").is_file()


def test_a_link_is_written_through(tmp_path):
    link, target = tmp_path / "x.csv", tmp_path / "elsewhere" / "y.dat"
    target.parent.mkdir()
    link.symlink_to("elsewhere/y.dat")
    for content in (OLD, NEW):  # the first time the link leads to nothing
        write_bytes(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert os.listdir(target.parent) == ["y.dat"]
    target.write_text("theirs")
    with pytest.raises(UserError, match="is not overwritten: move it away"):
        write_bytes(link, NEW)
    assert target.read_text() == "theirs"


@pytest.fixture
def windows(monkeypatch):
    """Files that are open can be neither renamed nor replaced; returns the pauses that were made."""
    pauses = []
    replace = os.replace

    def replace_if_closed(source, target):
        opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        if {os.path.realpath(source), os.path.realpath(target)} & opened:
            raise PermissionError(13, "Access is denied", str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(atomic_module, "OPEN_FILES_CAN_BE_REMOVED", False)
    monkeypatch.setattr(os, "replace", replace_if_closed)
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def test_where_open_files_cannot_be_replaced(windows, tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    write_bytes(path, OLD)
    assert windows == []
    with open(path) as reader:
        monkeypatch.setattr("time.sleep", lambda seconds: reader.close())  # it was there for a moment
        write_bytes(path, NEW)
    assert path.read_bytes() == NEW
    monkeypatch.setattr("time.sleep", windows.append)
    with open(path), pytest.raises(UserError, match=r"cannot replace .*x\.csv \(Access is denied\): close it in other"):
        write_bytes(path, OLD)
    assert sum(windows) == 2.0  # seconds
    assert path.read_bytes() == NEW
    assert os.listdir(tmp_path) == ["x.csv"]


def test_a_folder_that_cannot_be_opened_needs_no_sync(tmp_path, monkeypatch):
    opened = os.open

    def open_files_only(path, *rest, **options):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **options)

    monkeypatch.setattr(os, "open", open_files_only)
    write_bytes(tmp_path / "x.csv", NEW)
    assert (tmp_path / "x.csv").read_bytes() == NEW
