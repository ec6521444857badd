import io
import tarfile
from pathlib import Path

import pytest

from datamodules.archives.index import make_index
from datamodules.archives.members import Kind
from datamodules.archives.tar_members import tar_members
from datamodules.files.errors import UserError


def info(name, size=0, **attributes):
    made = tarfile.TarInfo(name)
    made.size = size
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    return made


@pytest.fixture
def tar(tmp_path):
    """A tar file of two images, 600 bytes and 0 bytes long."""
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as made:
        made.addfile(info("cat/1.jpg", 600), io.BytesIO(b"x" * 600))
        made.addfile(info("dog/2.jpg"))
    return path


def refused(path, match):
    """Checks that the archive is refused in one sentence."""
    with pytest.raises(UserError, match=match) as caught:
        make_index(str(path), None)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


def test_members_lie_where_the_layout_of_a_tar_file_says(tar):
    # A header of 512 bytes, 600 bytes in two blocks of 512, a header.
    assert [member[:4] for member in tar_members(str(tar))] == [
        ("cat/1.jpg", Kind.FILE, 512, 600),
        ("dog/2.jpg", Kind.FILE, 512 + 1024 + 512, 0),
    ]


@pytest.mark.parametrize("length", [1, 511, 513, 700, 1535, 1537, 2047])
def test_a_tar_file_that_is_cut_within_a_member_is_refused(tar, length):
    tar.write_bytes(tar.read_bytes()[:length])
    refused(
        tar,
        r"train\.tar is (not a tar file, or is damaged|cut off|damaged 1,536 bytes)",
    )


def test_a_tar_file_that_is_cut_within_an_image_names_it(tar):
    tar.write_bytes(tar.read_bytes()[:700])
    refused(tar, r"train\.tar is cut off within 'cat/1\.jpg': copy or pack it again")


@pytest.mark.parametrize("length", [1536, 2048, 2100])
def test_a_tar_file_that_is_cut_between_members_is_refused(tar, length):
    tar.write_bytes(tar.read_bytes()[:length])
    refused(tar, r"train\.tar is cut off, as it has no end mark: copy or pack it again")


def test_one_block_of_zeros_is_an_end_mark_enough(tar):
    tar.write_bytes(tar.read_bytes()[:2560])
    assert make_index(str(tar), None).names == ["cat/1.jpg", "dog/2.jpg"]


def test_joined_tar_files_are_refused(tar):
    tar.write_bytes(tar.read_bytes() * 2)
    refused(tar, r"goes on behind its end mark, as if tar files had been joined: unpack it with tar --ignore-zeros")


def test_a_damaged_header_is_refused_and_what_follows_it_is_not_left_out(tar):
    content = bytearray(tar.read_bytes())
    content[1540] ^= 0xFF
    tar.write_bytes(content)
    refused(tar, r"train\.tar is damaged 1,536 bytes after its beginning")


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 5000, b"PK\5\6" + bytes(18)])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "train.tar").write_bytes(content)
    refused(tmp_path / "train.tar", r"train\.tar is not a tar file, or is damaged")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "no.tar", r"cannot read .*no\.tar \(No such file")
    refused(tmp_path, "cannot read")


@pytest.mark.parametrize(
    "name",
    ["../1.jpg", "cat/../../1.jpg", "cat/..", "/etc/1.jpg", "C:/1.jpg", "c:1.jpg", "cat\\1.jpg", "..\\1.jpg", "../x"],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
def test_names_that_lead_out_of_the_archive_are_refused(tmp_path, name, kind):
    with tarfile.open(tmp_path / "train.tar", "w") as made:
        made.addfile(info("a/1.jpg"))
        made.addfile(info(name, type=kind, linkname="a/1.jpg"))
    refused(tmp_path / "train.tar", "whose name leads out of the archive on some systems: pack it again")


def test_dots_within_names_are_no_way_out(tmp_path):
    names = ["a..b/1.jpg", "a/1..jpg", "a/...jpg", "CC:/1.jpg"]
    with tarfile.open(tmp_path / "train.tar", "w") as made:
        for name in names:
            made.addfile(info(name))
    assert make_index(str(tmp_path / "train.tar"), None).names == ["a..b/1.jpg", "a/1..jpg", "CC:/1.jpg"]


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as made:
        for name in ("cat/1.jpg", "cat/2.jpg", "./cat//1.jpg"):
            made.addfile(info(name))
    refused(tmp_path / "train.tar", r"has several members named cat/1\.jpg: pack it again")


@pytest.mark.parametrize(
    "names", [["1.jpg", "1.jpg"], ["1.json", "./1.json"], ["other/1.txt", "other//1.txt"], ["none.jpg", "none.jpg"]]
)
def test_links_of_one_name_are_refused(tmp_path, names):
    with tarfile.open(tmp_path / "train.tar", "w") as made:
        for target in ("cat/1.jpg", "cat/2.json", "cat/2.jpg"):
            made.addfile(info(target))
        for name, target in zip(names, ("cat/1.jpg", "cat/2.jpg"), strict=True):
            made.addfile(info(name, type=tarfile.SYMTYPE, linkname=target))
    refused(tmp_path / "train.tar", rf"several members named {Path(names[0])}: pack it again")


def test_a_label_comes_once_whether_as_file_or_link(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as made:
        for member in (info("2.json"), info("1.json"), info("1.json", type=tarfile.LNKTYPE, linkname="2.json")):
            made.addfile(member)
    refused(tmp_path / "train.tar", r"several members named 1\.json")


def test_a_sparse_image_is_refused(tmp_path):
    sparse = info("cat/1.jpg", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000"})
    with tarfile.open(tmp_path / "train.tar", "w", format=tarfile.PAX_FORMAT) as made:
        sparse.size = 1
        made.addfile(sparse, io.BytesIO(b"x"))
    refused(tmp_path / "train.tar", r"'cat/1\.jpg' in .*train\.tar is sparse")


def header(name, kind, size):
    """A header by hand, with any size; a negative one in base 256, as GNU tar writes it."""
    made = info(name, 0, type=kind).tobuf(tarfile.USTAR_FORMAT)
    octal = size.to_bytes(12, "big", signed=True) if size < 0 else b"%011o\0" % size
    made = bytearray(made[:124] + octal + made[136:])
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


@pytest.mark.parametrize(
    "content",
    [
        header("1.jpg", tarfile.REGTYPE, -512),  # leads back to itself
        header("1.jpg", tarfile.REGTYPE, -1024) + bytes(2048),
        header("x", tarfile.XHDTYPE, 8 * 10**9) + bytes(2048),  # a name of 8 GB
        header("x", tarfile.GNUTYPE_LONGNAME, 8 * 10**9) + bytes(2048),
        header("x", tarfile.XHDTYPE, -5) + bytes(2048),
        header("x", tarfile.XHDTYPE, 0) * 5000 + bytes(2048),  # headers of headers
    ],
)
def test_a_bomb_is_refused_at_once(tmp_path, content):
    (tmp_path / "train.tar").write_bytes(content)
    refused(tmp_path / "train.tar", "is not a tar file, or is damaged")


@pytest.mark.parametrize(
    ("mode", "suffix", "command"),
    [("w:gz", ".tar.gz", "gunzip -k"), ("w:bz2", ".tar.bz2", "bunzip2 -k"), ("w:xz", ".tar.xz", "unxz -k")],
)
def test_a_compressed_tar_file_is_refused_with_the_command_that_converts(tmp_path, mode, suffix, command):
    for name, commanded in ((f"train{suffix}", f"train{suffix}"), ("train.tar", f"train.tar{suffix[4:]}")):
        with tarfile.open(tmp_path / name, mode) as made:
            made.addfile(info("cat/1.jpg"))
        refused(tmp_path / name, f"is compressed.* run {command} .*{commanded}")
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["train.tar", f"train{suffix}"]
