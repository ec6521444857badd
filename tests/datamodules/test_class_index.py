import random

import pytest

from datamodules import ClassIndex
from datamodules.class_index import natural_key
from datamodules.files.errors import UserError
from datamodules.sources.class_folders import ClassFolders


def test_numeric_folders_come_in_natural_order(tmp_path):
    names = [str(number) for number in range(100)]
    for name in random.Random(0).sample(names, 100):
        (tmp_path / name).mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "README.txt").touch()
    assert ClassFolders(tmp_path).class_names() == names


def test_natural_order_of_mixed_names(tmp_path):
    names = ["1", "01", "2", "10", "a2b10", "a10b2", "b", "ß"]
    for name in names:
        (tmp_path / name).mkdir()
    assert ClassFolders(tmp_path).class_names() == ["01", "1", "2", "10", "a2b10", "a10b2", "b", "ß"]


def test_paths_have_the_same_order_where_a_backslash_separates_folders(monkeypatch):
    names = ["a b.jpg", "a/2.jpg", "a/10.jpg", "aB.jpg", "a_.jpg", "b.jpg"]
    assert sorted(reversed(names), key=natural_key) == names
    monkeypatch.setattr("os.sep", "\\")
    there = [name.replace("/", "\\") for name in names]
    assert sorted(reversed(there), key=natural_key) == there


def test_digest_tells_names_and_order():
    digests = {ClassIndex(names).digest for names in (["a", "b"], ["b", "a"], ["a", "c"], ["a,b", "c"], ["a", "b,c"])}
    assert len(digests) == 5
    assert ClassIndex(("a", "b")).digest == ClassIndex(["a", "b"]).digest


def test_require_same_names_the_difference_and_ignores_order():
    index = ClassIndex(["1", "2", "10"])
    index.require_same(ClassIndex(["10", "2", "1"]), "train", "val")
    with pytest.raises(UserError, match="val must have the same 3 classes as train, but it lacks 10 and also has x"):
        index.require_same(ClassIndex(["1", "2", "x"]), "train", "val")


def test_names_that_look_the_same_are_shown_by_what_differs():
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    index = ClassIndex([composed, "dog", "cat"])
    with pytest.raises(UserError) as caught:
        index.require_same(ClassIndex([decomposed, "dog ", "Cat"]), "train", "val")
    assert str(caught.value) == (
        r"val must have the same 3 classes as train, but it spells 'Caf\xe9' as 'Cafe\u0301' (another Unicode form, "
        "NFC or NFD), 'dog' as 'dog ' (other blanks) and lacks cat and also has Cat: add, remove or rename classes"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a"], "at least 2 classes"), ([], "at least 2 classes"), (["a", "b", "a"], "got a more than")],
)
def test_refuses(names, message):
    with pytest.raises(UserError, match=message):
        ClassIndex(names)


def test_refuses_a_folder_without_classes(tmp_path):
    with pytest.raises(UserError, match="subfolder for each of 2 or more classes, found 0"):
        ClassFolders(tmp_path).class_names()
