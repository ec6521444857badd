import sys
from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from datamodules.sources.data_set import DataSet
from datamodules.sources.write_labels import write_labels

NAMES = ["a, b.jpg", 'the "big" one.jpg', "semi;colon.jpg", "=1+1.jpg", "'=1+1.jpg", " 1.jpg", r"\xe9.jpg", "größe.jpg"]
NAMES += ["two\nlines.jpg", "a\rb.jpg", "\rb.jpg", "tab\t.jpg", "caf\udce9.jpg"] if sys.platform == "linux" else []


def make(root, *places):
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(place.encode("utf-8", "surrogateescape"))
    return root


def listed(data, split="train"):
    source = data.require(split)
    found, _ = source.by_class(source.class_names())
    return {name: [(image.name, image.path) for image in files.images] for name, files in found.items()}


def test_every_name_that_a_file_can_have_is_read_back(tmp_path):
    names = [name for name in NAMES if sys.platform != "win32" or '"' not in name]
    root = make(tmp_path / "root", *(f"train/{label}/{name}" for label in ("=cat", "a;b") for name in names))
    assert write_labels(tmp_path / "labels.csv", DataSet(root)) == 2 * len(names)
    again = DataSet(root, {"labels": tmp_path / "labels.csv"})
    assert listed(again) == listed(DataSet(root))
    write_labels(tmp_path / "again.csv", again)
    assert Path(tmp_path / "again.csv").read_bytes() == Path(tmp_path / "labels.csv").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such names")
def test_classes_that_would_be_read_as_several_labels_are_told_by_their_names(tmp_path):
    root = make(tmp_path / "root", "train/cat/1.jpg", "train/dog/2.jpg", "train/dog|cat/3.jpg", "train/cat|dog/4.jpg")
    with pytest.raises(UserError, match=r"^the classes cat\|dog, dog\|cat cannot be written, as they would") as caught:
        write_labels(tmp_path / "labels.csv", DataSet(root))
    assert "line" not in str(caught.value)
    assert not (tmp_path / "labels.csv").exists()
