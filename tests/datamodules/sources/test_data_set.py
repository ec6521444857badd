import shutil
import tarfile
from pathlib import Path

import pytest

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError
from datamodules.split_names import require_outside_splits


@pytest.fixture
def one_folder(data_root, tmp_path):
    """``train`` alone, as people have it before they have splits."""
    return Path(shutil.copytree(data_root / "train", tmp_path / "photos"))


def set_up(root, stage="fit", **options):
    data = ImageFolderDataModule(root, num_workers=0, **options)
    data.setup(stage)
    return data


def names(data):
    return {split: list(data.dataset(split).names) for split in ("train", "val")}


def test_a_folder_of_class_folders_is_the_same_data_set_as_one_with_train(one_folder, data_root, tmp_path):
    with_train = tmp_path / "with_train"
    shutil.copytree(data_root / "train", with_train / "train")
    alone, split = set_up(one_folder), set_up(with_train)
    assert names(alone) == names(split)
    assert alone.fingerprint == split.fingerprint
    assert alone.classes.digest == split.classes.digest
    assert alone.held_out == (
        f"no {one_folder}/val: 10% of each class, 12 images, are held out of {one_folder}, whose folders are taken for "
        "classes, for validation"
    )
    assert list(set_up(one_folder, "validate").dataset("val").names) == names(alone)["val"]
    assert names(set_up(with_train / "train")) == names(split)  # with no other split beside it


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.copytree(root, root.parent / "all" / "photos"), "there is no folder .*/all/train with"),
        (lambda root: shutil.copytree(root, root.parent / "all" / "Train"), "rename .*/all/Train if it is meant"),
        (lambda root: shutil.copytree(root, root.parent / "all" / "test"), "there is no folder .*/all/train with"),
    ],
)
def test_what_may_be_something_else_is_not_taken_for_classes(one_folder, spoil, message):
    spoil(one_folder)
    (one_folder.parent / "all" / "more").mkdir()
    with pytest.raises(UserError, match=message):
        ImageFolderDataModule(one_folder.parent / "all")


def test_one_shard_is_not_the_whole_of_a_series(one_folder):
    root = one_folder.parent / "shards"
    root.mkdir()
    with tarfile.open(root / "train-000002.tar", "w") as archive:
        archive.add(one_folder, ".")
    with pytest.raises(UserError, match=r"lack train-000001\.tar: add what is missing"):
        ImageFolderDataModule(root)
    (root / "train-000002.tar").rename(root / "train-000000.tar")
    assert names(set_up(root)) == names(set_up(one_folder))


def test_no_output_goes_into_a_folder_of_class_folders(one_folder):
    with pytest.raises(UserError, match=f"lies in {one_folder}, whose files are data: choose another --json"):
        require_outside_splits(one_folder / "5" / "out", "--json", one_folder)
    require_outside_splits(one_folder.parent, "--json", one_folder)
