import io
import os
import stat
import warnings
import zipfile

import pytest

from datamodules.archives.index import make_index
from datamodules.archives.members import Kind
from datamodules.archives.zip_members import zip_members
from datamodules.files.errors import UserError


@pytest.fixture
def path(tmp_path):
    """A zip file of two stored images."""
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as made:
        made.writestr("cat/1.jpg", b"one")
        made.writestr("dog/2.jpg", b"second")
    return tmp_path / "train.zip"


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        make_index(str(path), None)
    assert "\n" not in str(caught.value)


def test_members_lie_where_the_layout_of_a_zip_file_says(path):
    # A local header of 30 bytes, the name, the bytes; then the next.
    assert [member[:4] for member in zip_members(str(path))] == [
        ("cat/1.jpg", Kind.FILE, 30 + 9, 3),
        ("dog/2.jpg", Kind.FILE, 30 + 9 + 3 + 30 + 9, 6),
    ]


def test_offsets_are_right_behind_a_prefix_and_in_the_long_form(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made, made.open("cat/1.jpg", "w", force_zip64=True) as member:
        member.write(b"one")
    (tmp_path / "train.zip").write_bytes(b"a program that unpacks itself" + buffer.getvalue())
    (member,) = zip_members(str(tmp_path / "train.zip"))
    assert (tmp_path / "train.zip").read_bytes()[member.offset :][: member.size] == b"one"


def test_compressed_images_are_refused_with_the_command_that_converts_and_other_files_may_be(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as made:
        made.writestr("cat/1.jpg", b"one")
        made.writestr("notes.txt", b"n" * 1000, zipfile.ZIP_DEFLATED)
        made.writestr("cat/.hidden.jpg", b"n" * 1000, zipfile.ZIP_DEFLATED)
        made.writestr("1.json", b'{"label": "cat"}', zipfile.ZIP_DEFLATED)
    index = make_index(str(tmp_path / "train.zip"), None)
    assert (index.names, index.labels) == (["cat/1.jpg"], {"1.json": "cat"})
    with zipfile.ZipFile(tmp_path / "train.zip", "a") as made:
        made.writestr("cat/2.JPG", b"two" * 1000, zipfile.ZIP_DEFLATED)
    refused(
        tmp_path / "train.zip",
        r"holds images that are compressed or encrypted .*, cat/2\.JPG: run unzip .*train\.zip -d .*train, or pack it "
        "again with zip -0",
    )


def test_encrypted_images_are_refused(path):
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    path.write_bytes(content[: directory + 8] + b"\1" + content[directory + 9 :])  # its general purpose flags
    refused(path, r"compressed or encrypted .*cat/1\.jpg")


@pytest.mark.parametrize("length", [0, 3, 40, 100, 150, -1, -22])
def test_a_zip_file_that_is_cut_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    refused(path, "is not a zip file, or is damaged or cut off")


def test_members_that_overlap_or_lead_past_the_end_are_refused(path):
    content = path.read_bytes()
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    for offset, size in ((0, 6), (42, 60000)):  # the range of the first, and a length beyond the directory
        sizes = size.to_bytes(4, "little") * 2
        damaged = content[: second + 20] + sizes + content[second + 28 : second + 42] + offset.to_bytes(4, "little")
        path.write_bytes(damaged + content[second + 46 :])
        refused(path, r"dog/2\.jpg overlaps with another member")
    path.write_bytes(content[: second + 42] + (5).to_bytes(4, "little") + content[second + 46 :])
    refused(path, r"no header of dog/2\.jpg")


def test_bytes_between_members_do_not_matter_to_those_that_are_listed(path):
    with zipfile.ZipFile(path, "a") as made:
        made.comment = b"made by hand"
    assert make_index(str(path), None).names == ["cat/1.jpg", "dog/2.jpg"]


@pytest.mark.parametrize("name", ["../1.jpg", "/1.jpg", "C:/1.jpg", "cat\\1.jpg", "cat/../../1.jpg"])
def test_names_that_lead_out_of_the_archive_are_refused(path, name):
    info = zipfile.ZipInfo("cat/3.jpg")
    info.filename = name  # ZipInfo would have changed it on Windows
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(info, b"")
    refused(path, "whose name leads out of the archive")


def test_a_name_that_comes_twice_is_refused(path):
    with zipfile.ZipFile(path, "a") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, of the name
        made.writestr("cat/1.jpg", b"other")
    refused(path, r"several members named cat/1\.jpg")


def test_links_devices_and_names_without_a_mark_are_understood(path):
    with zipfile.ZipFile(path, "a") as made:
        for name, mode, content in (
            ("cat/link.jpg", stat.S_IFLNK, b"../dog/2.jpg"),
            ("cat/lost.jpg", stat.S_IFLNK, b"3.jpg"),
            ("cat/pipe.jpg", stat.S_IFIFO, b""),
            ("größe/3.jpg", stat.S_IFREG, b""),
        ):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (mode | 0o644) << 16
            made.writestr(info, content)
        made.mkdir("empty")
    # The mark for UTF-8 is bit 11 of the flags, at byte 6 of a local header and byte 8 of one in the directory.
    content = bytearray(path.read_bytes())
    local = content.index("größe/3.jpg".encode()) - 30
    directory = content.index("größe/3.jpg".encode(), local + 31) - 46
    content[local + 7] = content[directory + 9] = 0
    path.write_bytes(content)
    index = make_index(str(path), None)
    assert index.names == ["cat/1.jpg", "dog/2.jpg", "größe/3.jpg", "cat/link.jpg"]
    assert index.offsets[3] == index.offsets[1]
    assert index.links.tolist() == [False, False, False, True]
    assert index.dangling == ["cat/lost.jpg"]
    assert index.passed_over == {("cat", ".jpg"): 1, ("empty", ""): 0}
    assert not [name for name in os.listdir(path.parent) if name != "train.zip"]
