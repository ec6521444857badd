import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest

from datamodules.archives import index, kept_index
from datamodules.archives.kept_index import open_index
from datamodules.files.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cbam100" / "archives"


@pytest.fixture
def scans(monkeypatch):
    """The paths of the archives whose headers were read."""
    paths = []
    monkeypatch.setattr(
        kept_index, "make_index", lambda path, *args: paths.append(path) or index.make_index(path, *args)
    )
    return paths


def pack(path, **members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, next(iter(members), "")
        tar.addfile(link)
    return str(path)


MEMBERS = {
    "größe/1.jpg": b"one",
    "\udcff.jpg": b"",
    "2.cls": b"7\n",
    "3.json": b'{"a": "x"}',
    "x/.h": b"",
    "y/a.heic": b"",
}


def equal(one, two):
    parts = [(vars(one)[name], vars(two)[name]) for name in vars(one)]
    return all(np.array_equal(a, b) and a.dtype == b.dtype if isinstance(a, np.ndarray) else a == b for a, b in parts)


@pytest.mark.parametrize("members", [MEMBERS, {}])
def test_a_kept_index_is_the_one_that_was_made(tmp_path, cache, scans, members):
    path = pack(tmp_path / "train.tar", **members)
    (first, status), (second, again) = open_index(path), open_index(path)
    assert equal(first, second)
    assert equal(second, index.make_index(path, None))
    assert status.st_mtime_ns == again.st_mtime_ns == os.stat(path).st_mtime_ns
    assert scans == [path]
    (tmp_path / "link.tar").symlink_to(path)
    open_index(str(tmp_path / "link.tar"))  # the same file
    assert len(scans) == 1
    assert sorted(os.listdir(tmp_path)) == ["cache", "link.tar", "train.tar"]


def test_a_changed_archive_and_another_label_column_are_indexed_anew(tmp_path, cache, scans):
    path = pack(tmp_path / "train.tar", **MEMBERS)
    open_index(path)
    pack(path, **{"other/1.jpg": b"1"})
    assert open_index(path)[0].names == ["other/1.jpg", "link.jpg"]
    pack(path, **MEMBERS)
    os.utime(path, ns=(5, 5))
    assert len(open_index(path)[0].names) == 3
    assert len(scans) == 3
    assert len(list(cache.iterdir())) == 1  # what is of an older archive does not stay
    assert open_index(path, "a")[0].labels["3.json"] == "x"
    assert open_index(path)[0].faults["3.json"] == "has no field label, class, target"
    assert len(scans) == 4


def test_another_archive_of_the_same_size_and_time_is_indexed_anew(tmp_path, cache, scans):
    path = pack(tmp_path / "train.tar", **{"cat/1.jpg": b"1"})
    os.utime(path, ns=(5, 5))
    open_index(path)
    other = pack(tmp_path / "other.tar", **{"dog/1.jpg": b"1"})
    os.utime(other, ns=(5, 5))
    os.replace(other, path)
    assert open_index(path)[0].names == ["dog/1.jpg", "link.jpg"]
    assert len(scans) == 2


def damaged(content):
    yield from (b"", b"x", content[:-30], content[: len(content) // 2])
    yield from (content[:at] + b"?" + content[at + 1 :] for at in range(0, len(content), 97))


def test_a_damaged_or_foreign_index_is_made_again(tmp_path, cache, scans):
    path = pack(tmp_path / "train.tar", **MEMBERS)
    right, _ = open_index(path)
    (kept,) = cache.iterdir()
    for content in damaged(kept.read_bytes()):
        kept.write_bytes(content)
        assert equal(open_index(path)[0], right)
    np.save(kept.with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
    before = len(scans)
    kept.write_bytes(kept.with_suffix(".npy").read_bytes())  # a pickle, which is not opened
    assert equal(open_index(path)[0], right)
    with np.load(kept) as arrays:
        short = {**arrays, "sizes": arrays["sizes"][1:]}
    with open(kept, "wb") as file:
        np.savez(file, **short)
    assert equal(open_index(path)[0], right)
    assert len(scans) == before + 2


def test_an_index_of_an_earlier_format_is_made_again(tmp_path, cache, scans, monkeypatch):
    path = pack(tmp_path / "train.tar", **MEMBERS)
    open_index(path)
    monkeypatch.setattr(kept_index, "FORMAT", kept_index.FORMAT + 1)
    open_index(path)
    assert len(scans) == 2


def test_where_nothing_can_be_kept_the_run_goes_on(tmp_path, scans, monkeypatch):
    path = pack(tmp_path / "train.tar", **MEMBERS)
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # a file
    assert len(open_index(path)[0].names) == len(open_index(path)[0].names) == 3
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(kept_index.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert len(open_index(path)[0].names) == 3
    assert len(scans) == 3
    with pytest.raises(UserError, match=r"cannot read .*gone"):
        open_index(f"{path}.gone")


def test_a_refused_archive_is_not_kept(tmp_path, cache):
    path = tmp_path / "train.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("cat/1.jpg", json.dumps({}))
    with pytest.raises(UserError, match="compressed"):
        open_index(str(path))
    assert not cache.exists()
