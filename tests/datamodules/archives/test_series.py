import os

import pytest

from datamodules.archives.series import archives_of, is_archive, refuse_compressed, series_name
from datamodules.files.errors import UserError


def test_the_archives_of_a_split_are_found_by_their_names(tmp_path):
    for name in ("train.tar", "train-10.tar", "train-9.tar", "train.zip", "train.tar.gz", "trained.tar", "val-1.tar",
                 "train-x.tar", "train-1.tar.part"):  # fmt: skip
        (tmp_path / name).touch()
    assert [[path.name for path in form] for form in archives_of(tmp_path, "train")] == [
        ["train.tar"], ["train-9.tar", "train-10.tar"], ["train.zip"],
    ]  # fmt: skip
    assert archives_of(tmp_path / "none", "train") == archives_of(tmp_path, "test") == []


@pytest.mark.parametrize(
    ("name", "command"),
    [("train.tar.gz", "gunzip -k"), ("train-000001.tgz", "gunzip -k"), ("train.tar.zst", "unzstd")],
)
def test_a_compressed_split_is_refused_with_the_command_that_converts(tmp_path, name, command):
    (tmp_path / name).touch()
    refuse_compressed(tmp_path, "val")
    with pytest.raises(UserError, match=rf"compressed.* run {command} .*{name}"):
        refuse_compressed(tmp_path, "train")
    assert is_archive(tmp_path / name)


def test_suffixes_of_any_letter_case_are_found(tmp_path):
    for name in ("train.TAR", "val-000000.Zip", "Test.tar"):
        (tmp_path / name).touch()
    assert archives_of(tmp_path, "train") == [[tmp_path / "train.TAR"]]
    assert archives_of(tmp_path, "val") == [[tmp_path / "val-000000.Zip"]]
    assert archives_of(tmp_path, "test") == []


def test_only_files_are_archives(tmp_path):
    (tmp_path / "train.tar").mkdir()
    assert archives_of(tmp_path, "train") == []
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "train.zip")
        assert archives_of(tmp_path, "train") == []
        os.mkfifo(tmp_path / "val.tgz")
        refuse_compressed(tmp_path, "val")
        (tmp_path / "test.tar").symlink_to("nowhere")  # which must not pass for one left out
        assert archives_of(tmp_path, "test") == [[tmp_path / "test.tar"]]


def test_a_series_is_called_by_its_ends(tmp_path):
    assert series_name([tmp_path / f"a-{n:02}.zip" for n in range(8, 12)]) == str(tmp_path / "a-{08..11}.zip")
    assert series_name([tmp_path / "a.tar", tmp_path / "b.tar"]) == f"{tmp_path / 'a.tar'} and 1 more"
