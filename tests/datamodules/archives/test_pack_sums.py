import pytest

from datamodules.files.errors import UserError
from datamodules.sources.data_set import DataSet
from scripts.pack import pack


@pytest.fixture
def packed(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return pack(data_root, tmp_path / "packed", shard_mb=0.1)


@pytest.mark.parametrize(
    ("spoil", "split", "fault"),
    [
        (lambda root: (root / "SHA256SUMS").unlink(), "train", "it has no SHA256SUMS"),  # interrupted
        (lambda root: max(root.glob("train*")).unlink(), "train", r"it lacks train-00000\d\.tar"),  # classes would go
        (lambda root: [path.unlink() for path in root.glob("val*")], "val", r"it lacks val-000000\.tar"),  # all of it
        (lambda root: max(root.glob("val*")).rename(root / "val-000009.tar"), "val", "does not name val-000009"),
    ],
)
def test_a_part_of_a_pack_is_not_taken_for_the_whole(packed, spoil, split, fault):
    assert DataSet(packed).find(split)
    spoil(packed)
    with pytest.raises(UserError, match=f"the pack in {packed} is not complete, as .*{fault}.*: repeat the cbam100"):
        DataSet(packed).find(split)


def test_shards_of_others_need_no_sums(packed):
    (packed / "SHA256SUMS").unlink()
    for path in packed.glob("*.tar"):
        path.write_bytes(path.read_bytes().replace(b" comment=cbam100 pack\n", b" comment=another pack\n"))
    assert DataSet(packed).find("train")
    (packed / "SHA256SUMS").write_text("of something else\n")
    assert DataSet(packed).find("val")
