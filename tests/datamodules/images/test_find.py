import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.files.errors import UserError
from datamodules.images.find import SUFFIXES, find_images


def names(paths, folder):
    return [path.removeprefix(f"{folder}/") for path in paths]


def make(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_lists_images_in_natural_order_whatever_their_case_and_depth(tmp_path):
    make(tmp_path, "10.jpg", "2.JPG", "sub/1.PNG", ".hidden.jpg", ".git/3.jpg", "notes.txt", "x.webp", "y.Jpeg",
         "z.bmp", "README", "a.txt")  # fmt: skip
    found = find_images(tmp_path)
    assert [image.name for image in found.images] == ["2.JPG", "10.jpg", "sub/1.PNG", "x.webp", "y.Jpeg", "z.bmp"]
    assert (found.hidden, found.other) == (2, {".txt": 2, "without suffix": 1})
    assert found.passed_over() == "2 hidden, 3 of other types (2 .txt, 1 without suffix)"


def test_loops_end_and_each_file_comes_once_under_its_own_name(tmp_path):
    make(tmp_path, "z/1.jpg", "b/2.jpg")
    (tmp_path / "z" / "self").symlink_to(tmp_path / "z")
    (tmp_path / "z" / "to_b").symlink_to(tmp_path / "b")  # two loops that cross
    (tmp_path / "b" / "to_z").symlink_to(tmp_path / "z")
    (tmp_path / "b" / "up").symlink_to("..")
    (tmp_path / "a_link_that_sorts_first").symlink_to(tmp_path / "z")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    found = find_images(tmp_path)
    assert [image.name for image in found.images] == ["b/2.jpg", "z/1.jpg"]
    assert names(found.loops, tmp_path) == ["a_link_that_sorts_first", "b/to_z", "b/up", "z/self", "z/to_b"]
    assert names(found.dangling, tmp_path) == ["circle.jpg"]


def test_links_are_followed_and_reported_where_they_lead_nowhere_or_to_a_listed_file(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    make(inside, "1.jpg")
    make(outside, "2.jpg", "more/3.jpg")
    (inside / "0.jpg").symlink_to("1.jpg")
    (inside / "4.jpg").symlink_to(outside / "2.jpg")
    (inside / "5.jpg").symlink_to(outside / "2.jpg")
    (inside / "folder").symlink_to(outside / "more")
    (inside / "gone.jpg").symlink_to("nowhere.jpg")
    (inside / "gone").symlink_to("nowhere")
    os.link(inside / "1.jpg", inside / "hard.jpg")  # a file like any other
    os.mkfifo(inside / "pipe.jpg")  # opening it would wait for ever
    found = find_images(inside)
    assert [image.name for image in found.images] == ["1.jpg", "4.jpg", "folder/3.jpg", "hard.jpg"]
    assert [image.name for image in found.again] == ["0.jpg", "5.jpg"]
    assert names(found.dangling, inside) == ["gone", "gone.jpg"]
    assert found.other == {".jpg": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_closed_folder_is_an_error(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match=r"cannot list the images in .*closed"):
        find_images(tmp_path)


def test_a_folder_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot list the images in .*absent \(No such file"):
        find_images(tmp_path / "absent")


file_name = st.builds(
    lambda stem, suffix: stem[:40] + suffix,
    st.binary(min_size=1).filter(lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")),
    st.sampled_from([b"", b".txt", *(s.encode() for s in SUFFIXES), *(s.upper().encode() for s in SUFFIXES)]),
)


@settings(max_examples=150)
@given(st.sets(file_name, max_size=8))
def test_any_names_are_listed_once_each_and_none_is_changed(files):
    with tempfile.TemporaryDirectory() as folder:
        for name in files:
            Path(os.fsdecode(os.path.join(folder.encode(), name))).touch()
        found = find_images(Path(folder))
        visible = {name for name in files if not name.startswith(b".")}
        images = {name for name in visible if name.lower().endswith(tuple(s.encode() for s in SUFFIXES))}
        listed = [os.path.basename(os.fsencode(image.path)) for image in found.images]
        assert len(listed) == len(images)
        assert set(listed) == images
        assert all(os.path.exists(image.path) for image in found.images)
        assert (found.hidden, found.other.total()) == (len(files - visible), len(visible - images))
