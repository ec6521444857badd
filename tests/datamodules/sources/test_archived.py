import io
import os
import posixpath
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError
from datamodules.groups import stay_together
from datamodules.images.location import open_content, shown
from datamodules.sources.archived import Archived
from datamodules.sources.class_folders import ClassFolders
from datamodules.sources.data_set import DataSet, list_to_predict
from datamodules.splits import list_split, require_apart


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def pack(path, members, prefix="", links=(), format=tarfile.PAX_FORMAT):
    """Makes a tar or zip file of contents by name; a content of None is a folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(prefix + name + ("/" if content is None else ""), content or b"")
        return path
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(prefix + name)
            info.type, info.size = tarfile.DIRTYPE if content is None else tarfile.REGTYPE, len(content or b"")
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(content or b""))
        for name, kind, target in links:
            info = tarfile.TarInfo(prefix + name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return path


def content(path):
    opened = open_content(path)
    if isinstance(opened, str):
        return Path(opened).read_bytes()
    with opened:
        return opened.read()


def facts(source, above):
    """What two forms of a split must agree on: contents by class and name, and what is passed over."""
    names = source.class_names()
    found, _ = source.by_class(names)
    return {
        name: (
            [(image.name, content(image.path)) for image in files.images],
            [image.name for image in files.again],
            [shown(path).removeprefix(above) for path in files.dangling],
            files.hidden,
            files.other,
        )
        for name, files in found.items()
    }


PARTS = ["1", "2", "10", "a b", "größe", "日本", "x.y", ".h", "__", "n" * 120]
PARTS += ["\udcff\udc80"] if sys.platform == "linux" else []  # other systems have no such names
SUFFIXED = st.builds(
    str.__add__, st.sampled_from(PARTS), st.sampled_from([".jpg", ".png", ".txt", "", ".heic", ".json"])
)
PLACES = st.builds(
    lambda *parts: "/".join([*parts[0], parts[1]]), st.lists(st.sampled_from(PARTS[:-1]), max_size=2), SUFFIXED
)


@settings(max_examples=50)
@given(
    st.dictionaries(PLACES, st.binary(max_size=600), max_size=12),
    st.sampled_from(["", "./", "train/", "./data/.//train/"]),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, "zip"]),
)
def test_an_archive_is_the_same_data_set_as_the_folder_that_it_unpacks_to(members, prefix, form):
    members = {f"{name}/{place}": content for place, content in members.items() for name in ("cat", "dog 2")}
    members |= {"cat/1.jpg": b"1", "dog 2/5/1.jpg": b"2", "dog 10/.gitkeep": b"", "dog 10/2.heic": b""}
    members = {place: content for place, content in members.items() if not is_folder_too(place, members)}
    if form == "zip":
        members = {place: content for place, content in members.items() if "\udcff" not in place}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.zip" if form == "zip" else "train.tar")
        pack(path, members, prefix, format=form)
        unpacked = Path(folder, "unpacked")
        if form == "zip":
            with zipfile.ZipFile(path) as archive:
                archive.extractall(unpacked)
        else:
            with tarfile.open(path) as archive:
                archive.extractall(unpacked, filter="data")
        folders = ClassFolders(Path(posixpath.normpath(posixpath.join(unpacked, prefix))))
        assert facts(Archived([path]), f"{path}/") == facts(folders, f"{folders.folder}/")
        ours, theirs = Archived([path]).images(), folders.images()
        assert [image.name for image in ours.images] == [image.name for image in theirs.images]


def is_folder_too(place, members):
    return any(other.startswith(f"{place}/") for other in members)


LINKS = [
    ("cat/hard.jpg", tarfile.LNKTYPE, "cat/1.jpg"),
    ("cat/0soft.jpg", tarfile.SYMTYPE, "1.jpg"),
    ("cat/deep/up.jpg", tarfile.SYMTYPE, "../../notes/blob"),
    ("cat/twice.jpg", tarfile.SYMTYPE, "deep/up.jpg"),
    ("cat/lost.jpg", tarfile.SYMTYPE, "../2.jpg"),
    ("cat/circle.jpg", tarfile.SYMTYPE, "circle.jpg"),
    ("cat/text.txt", tarfile.SYMTYPE, "1.jpg"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_followed_as_in_a_folder(tmp_path):
    members = {"cat/1.jpg": b"one", "dog/1.jpg": b"two", "notes/blob": b"three", "notes/3.jpg": b"3"}
    path = pack(tmp_path / "train.tar", members, links=LINKS)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "train", filter="data")
    ours, theirs = (facts(source, f"{above}/") for source, above in (
        (Archived([path]), path), (ClassFolders(tmp_path / "train"), tmp_path / "train"),
    ))  # fmt: skip
    assert ours == theirs
    assert [name for name, _ in ours["cat"][0]] == ["1.jpg", "deep/up.jpg", "hard.jpg"]


def test_devices_are_passed_over_and_links_out_of_the_archive_lead_nowhere(tmp_path):
    links = [
        ("cat/pipe", tarfile.FIFOTYPE, ""),
        ("cat/disk.jpg", tarfile.BLKTYPE, ""),
        ("cat/passwd.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ("cat/up.jpg", tarfile.SYMTYPE, "../../../etc/passwd"),
    ]
    path = pack(tmp_path / "train.tar", {"cat/1.jpg": b"", "dog/1.jpg": b""}, links=links)
    found = Archived([path]).by_class(["cat", "dog"])[0]["cat"]
    assert found.other == {"without suffix": 1, ".jpg": 1}
    assert found.dangling == [f"{path}/cat/passwd.jpg", f"{path}/cat/up.jpg"]
    assert [image.name for image in found.images] == ["1.jpg"]


def test_shards_are_one_split_in_natural_order(tmp_path):
    shards = [
        pack(tmp_path / "train-000000.tar", {"cat/10.jpg": b"10", "dog/1.jpg": b"1"}, "train/"),
        pack(tmp_path / "train-000001.tar", {"cat/2.jpg": b"2"}, "train/"),
        pack(tmp_path / "train-000002.tar", {"cat/1.jpg": b"1"}, "./train/"),
    ]
    source = Archived(shards[::-1])
    assert source.where == str(tmp_path / "train-{000000..000002}.tar")
    found, _ = source.by_class(source.class_names())
    assert [(image.name, content(image.path)) for image in found["cat"].images] == [
        ("1.jpg", b"1"), ("2.jpg", b"2"), ("10.jpg", b"10"),
    ]  # fmt: skip
    assert [image.name for image in source.images().images] == ["cat/1.jpg", "cat/2.jpg", "cat/10.jpg", "dog/1.jpg"]


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["train-000000.tar", "train-000002.tar"], r"train-\{000000..000002\}.tar lack train-000001\.tar: add"),
        (["train-000002.tar", "train-000003.tar"], r"lack train-000001\.tar"),
        (["train-000000.tar", "train-000001.zip"], "must be of one kind"),
        (["train-1.tar", "train-000001.tar"], "have one number"),
    ],
)
def test_a_series_with_a_gap_is_refused(tmp_path, names, match):
    with pytest.raises(UserError, match=match):
        Archived([tmp_path / name for name in names])


def test_series_from_0_and_from_1_and_one_shard_by_itself_are_whole(tmp_path):
    for numbers in ((0, 1, 2), (1, 2), (7,)):
        Archived([tmp_path / f"train-{number:06}.tar" for number in numbers])


def test_a_name_in_two_shards_is_refused(tmp_path):
    shards = [pack(tmp_path / f"train-{i}.tar", {"cat/1.jpg": b"", f"dog/{i}.jpg": b""}) for i in (0, 1)]
    with pytest.raises(UserError, match=r"several of the shards .* have an image named cat/1\.jpg: give each"):
        Archived(shards).images()


LABELLED = {"2.jpg": b"2", "2.cls": b"1\n", "10.jpg": b"10", "10.cls": b"0", "3.left.PNG": b"3", "3.cls": b" 01"}


@pytest.mark.parametrize("name", ["train.tar", "train.zip"])
def test_webdataset_with_class_indices(tmp_path, name):
    (tmp_path / "classes.txt").write_text("dog\ncat\nfox\n")
    source = Archived([pack(tmp_path / name, LABELLED, "data/")], tmp_path / "classes.txt")
    assert source.class_names() == ["cat", "dog"]
    found, _ = source.by_class(["cat", "dog"])
    assert {c: [(image.name, content(image.path)) for image in files.images] for c, files in found.items()} == {
        "cat": [("2.jpg", b"2"), ("3.left.PNG", b"3")],
        "dog": [("10.jpg", b"10")],
    }
    assert not found["cat"].passed_over()
    assert [image.name for image in source.images().images] == ["2.jpg", "3.left.PNG", "10.jpg"]


def test_webdataset_with_json(tmp_path):
    members = {
        "1.jpg": b"", "1.json": b'{"Label": 10, "width": 1.5}', "2.jpg": b"",
        "2.json": '\ufeff{"class": "größe"}'.encode(), "3.jpg": b"", "3.json": b'{"target": "01", "kind": 7}',
        "about.json": b"[]",
    }  # fmt: skip
    path = pack(tmp_path / "train.tar", members)
    assert Archived([path]).class_names() == ["01", "10", "größe"]
    (other,) = {str(found.passed_over()) for found in Archived([path]).by_class(["01"])[0].values()}
    assert other == ""


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"10.cls": None}, r"has no \.cls for 1 of its 3 images, 10\.jpg: give each image its label"),
        ({"10.jpg": None}, r"has labels without an image, 10\.cls: add the images as JPEG or PNG, or remove"),
        ({"10.cls": b"3"}, r"no class indices from 0 to 2, the lines of .*classes\.txt: 10\.cls \(3\)"),
        ({"10.cls": b"-1"}, r"10\.cls \(-1\)"),
        ({"10.cls": b"cat"}, r"10\.cls \(cat\)"),
        ({"10.cls": b"1.0"}, r"10\.cls \(1\.0\)"),
        ({"10.cls": "²".encode()}, r"10\.cls \(²\)"),
        ({"10.cls": b" \n"}, r"cannot be understood: 10\.cls \(is empty\)"),
        ({"10.cls": b"\xff"}, r"10\.cls \(is not in UTF-8\)"),
        ({"10.CLS": b"0"}, r"has two labels for 10, 10\.cls and 10\.CLS"),
    ],
)
def test_faults_of_class_indices_are_listed(tmp_path, changes, match):
    (tmp_path / "classes.txt").write_text("dog\ncat\nfox\n")
    members = {name: value for name, value in (LABELLED | changes).items() if value is not None}
    with pytest.raises(UserError, match=match):
        Archived([pack(tmp_path / "train.tar", members)], tmp_path / "classes.txt").class_names()


@pytest.mark.parametrize(
    ("content", "column", "match"),
    [
        (b"[1]", None, r"1\.json \(must be a JSON object, got \[.1.\]\)"),
        (b"{", None, r"1\.json \(is not a JSON object, "),
        (b"[" * 100_000, None, r"1\.json \(is not a JSON object, "),
        (b'{"label": ["a", "b"]}', None, "has a list as label, .*, but this project is single-label"),
        (b'{"label": "a", "class": "b"}', None, "several fields that may be the label, label, class: choose"),
        (b'{"label": "a", "Label": "b"}', None, "several fields that may be the label, label, Label: choose"),
        (b'{"label": "a", "label": "a"}', None, "a key comes twice"),
        (b'{"Kind": "a"}', "kind", "has no field kind"),  # typed names are exact
        (b'{"kind": "a"}', None, "has no field label, class, target"),
        (b'{"label": "a"}', "kind", "has no field kind"),
        (b'{"label": ""}', None, "is empty"),
        (b'{"label": null}', None, "must have text or an integer as label, got null"),
        (b'{"label": true}', None, "as label, got true"),
        (b'{"label": {"a": 1}}', None, 'as label, got {"a": "1"}'),
        (b'{"label": 1.0}', None, r"as label, got 1\.0"),
        (b'{"label": "a\\u0000b"}', None, r"has the label 'a\\x00b', which is no name that"),
        (b'{"label": "a/b"}', None, "has the label 'a/b', which is no name"),
        (b'{"label": ".a"}', None, "has the label '.a', which is no name"),
        (b'{"label": "\\ud800"}', None, "which is no name"),
    ],
)
def test_faults_of_json_are_listed(tmp_path, content, column, match):
    path = pack(tmp_path / "train.tar", {"1.jpg": b"", "1.json": content, "2.jpg": b"", "2.json": b'{"label": "b"}'})
    with pytest.raises(UserError, match=match) as caught:
        Archived([path], label_column=column).class_names()
    assert "\0" not in str(caught.value)


def test_labels_that_look_like_several_are_refused_as_in_a_labels_file(tmp_path):
    labels = {f"{i}": b'{"label": "%s"}' % label for i, label in enumerate((b"a", b"c", b"a|c"))}
    members = {f"{key}.{suffix}": text for key, text in labels.items() for suffix in ("jpg", "json")}
    with pytest.raises(UserError, match=r"train\.tar has several labels in one, 'a\|c', but this"):
        Archived([pack(tmp_path / "train.tar", members)]).class_names()


def test_a_column_chooses_json_where_there_are_class_indices_too(tmp_path):
    members = LABELLED | {f"{n}.json": b'{"kind": "%d", "label": "x"}' % n for n in (2, 3, 10)}
    assert Archived([pack(tmp_path / "train.tar", members)], label_column="kind").class_names() == ["2", "3", "10"]


def test_json_beside_images_in_class_folders_is_no_label(tmp_path):
    members = {"cat/1.jpg": b"", "cat/1.json": b'{"label": "x"}', "dog/1.jpg": b""}
    source = Archived([pack(tmp_path / "train.tar", members)])
    assert source.class_names() == ["cat", "dog"]
    assert source.by_class(["cat", "dog"])[0]["cat"].other == {".json": 1}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "pass --data.class_list FILE"),
        ("a\n\nb", "name a different class in each line, but '' is empty or repeated"),
        ("a\nb\na\n", "but 'a' is empty or"),
        ("a/b\nc", "could have, got 'a/b'"),
    ],
)
def test_a_class_list_must_be_given_and_have_a_class_in_each_line(tmp_path, text, match):
    if text is not None:
        (tmp_path / "classes.txt").write_text(text)
    source = Archived([pack(tmp_path / "train.tar", LABELLED)], text and tmp_path / "classes.txt")
    with pytest.raises(UserError, match=match):
        source.class_names()
    assert len(source.images().images) == 3  # which need no label
    with pytest.raises(UserError, match=r"cannot read --data\.class_list"):
        Archived(source.paths, tmp_path / "none.txt").class_names()


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"1.jpg": b"", "cat/2.jpg": b"", "dog/3.jpg": b""}, r"holds images beside its class folders, 1\.jpg: move"),
        ({"1.jpg": b"", "2.jpg": b""}, "images beside its class folders|folder for each of 2 or more classes"),
        ({"cat/1.jpg": b"", "cat/2.jpg": b""}, "2 or more classes, .* found cat"),
        ({"cat/1.heic": b""}, r"found cat and passed over 1 of other types \(1 \.heic\)"),
        ({}, "found no class"),
    ],
)
def test_an_archive_without_classes_is_refused(tmp_path, members, match):
    source = Archived([pack(tmp_path / "train.tar", members)])
    with pytest.raises(UserError, match=match):
        source.by_class(source.class_names())


def test_a_class_with_images_of_no_readable_type_is_named(tmp_path):
    source = Archived([pack(tmp_path / "train.tar", {"cat/1.jpg": b"", "cat/2.jpg": b"", "dog/1.heic": b""}, "t/")])
    with pytest.raises(UserError, match=r"none in dog, only 1 of other types \(1 \.heic\): convert"):
        list_split(source, ClassIndex(source.class_names()))


def test_splits_and_classes_that_share_an_archive_or_a_member_are_found(tmp_path):
    members = {"cat/1.jpg": b"1", "dog/1.jpg": b"2"}
    train = Archived([pack(tmp_path / "train.tar", members)])
    os.link(tmp_path / "train.tar", tmp_path / "val.tar")
    classes = ClassIndex(["cat", "dog"])
    _, found = list_split(train, classes)
    require_apart(found, list_split(Archived([pack(tmp_path / "b.tar", members)]), classes)[1], "train", "val")
    for source in (Archived([tmp_path / "val.tar"]), Archived([tmp_path / "train.tar"])):
        for other in (list_split(source, classes)[1], source.images()):
            with pytest.raises(UserError, match=r"make val share 1 of its files with train \(.*\.tar\): remove"):
                require_apart(found, other, "train", "val")
    for kind, target in ((tarfile.LNKTYPE, "cat/1.jpg"), (tarfile.SYMTYPE, "../cat/1.jpg")):
        twice = Archived([pack(tmp_path / "twice.tar", members, links=[("dog/2.jpg", kind, target)])])
        with pytest.raises(UserError, match=r"make class dog share 1 .*twice\.tar/dog/2\.jpg\)") as caught:
            list_split(twice, classes)
        assert "\0" not in str(caught.value)


def test_names_of_one_member_stay_together_when_images_are_held_out(tmp_path):
    links = [("cat/3.jpg", tarfile.LNKTYPE, "cat/1.jpg")]
    path = pack(tmp_path / "train.tar", {"cat/1.jpg": b"1", "cat/2.jpg": b"2", "dog/1.jpg": b"1"}, links=links)
    together = stay_together(Archived([path]).by_class(["cat"])[0]["cat"].images)
    assert [[image.name for image in images] for images in together] == [["1.jpg", "3.jpg"], ["2.jpg"]]


def test_images_of_a_prediction_are_named_without_the_folder_that_holds_all(tmp_path):
    found = Archived(
        [pack(tmp_path / "photos.tar", {"2.jpg": b"", "10.jpg": b"", "notes.txt": b""}, "./a/b/")]
    ).images()
    assert [image.name for image in found.images] == ["2.jpg", "10.jpg"]
    assert shown(found.images[0].path) == f"{tmp_path}/photos.tar/a/b/2.jpg"
    assert found.passed_over() == "1 of other types (1 .txt)"


def test_a_data_set_finds_its_splits_in_archives(tmp_path):
    members = {"cat/1.jpg": b"1", "dog/1.jpg": b"2"}
    pack(tmp_path / "train-000000.tar", members)
    pack(tmp_path / "train-000001.tar", {"cat/2.jpg": b"3"})
    pack(tmp_path / "val.zip", members)
    data = DataSet(tmp_path)
    assert len(data.require("train").images().images) == 3
    assert len(data.require("val").images().images) == 2
    assert data.find("test") is None
    assert [image.name for image in list_to_predict(tmp_path / "val.zip").images] == ["cat/1.jpg", "dog/1.jpg"]
    (tmp_path / "val").mkdir()
    (tmp_path / "test.tgz").touch()
    with pytest.raises(UserError, match=r"val is there in several forms, .*val, .*val\.zip: move all but one away"):
        DataSet(tmp_path).find("val")
    with pytest.raises(UserError, match=r"compressed.* run gunzip -k .*test\.tgz"):
        DataSet(tmp_path).find("test")


def test_a_data_set_passes_its_options_to_archives(tmp_path):
    pack(tmp_path / "train.tar", LABELLED)
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    data = DataSet(tmp_path, {"class_list": str(tmp_path / "classes.txt"), "label_column": None})
    assert data.require("train").class_names() == ["cat", "dog"]
