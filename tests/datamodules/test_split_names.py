from pathlib import Path

import pytest

from datamodules.split_names import advice, lookalikes


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("val", "Val.tar"),
        ("val", "validation.tar"),
        ("val", "valid.zip"),
        ("val", "dev-000000.tar"),
        ("val", "val_2017.tgz"),
        ("val", "images/val.tar"),
        ("train", "train-000000-of-000002.tar"),
        ("train", "training.tar"),
    ],
)
def test_archives_with_nearly_the_name_of_a_split_are_named(tmp_path, split, name):
    (tmp_path / "images").mkdir()
    (tmp_path / name).touch()
    for other in ("trainer.tar", "val.csv", ".val.tar", "photos.zip"):
        (tmp_path / other).touch()
    assert lookalikes(tmp_path / split) == [str(tmp_path / name)]
    assert advice(tmp_path / split) == (
        f"rename {Path(tmp_path, name)} if it is meant ({split}.tar, or {split}-000000.tar and so on), or pass another "
        "--data.root"
    )


def test_of_shards_only_the_first_is_named(tmp_path):
    for number in range(12):
        (tmp_path / f"train_{number:06}.tar").touch()
    (tmp_path / "Train").mkdir()
    assert lookalikes(tmp_path / "train") == [str(tmp_path / name) for name in ("Train", "train_000000.tar")]
