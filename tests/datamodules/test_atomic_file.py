import os
import stat

import pytest

from datamodules.atomic_file import atomic_file
from datamodules.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")

    def fail():
        with atomic_file(target) as temporary:
            assert temporary.parent == tmp_path
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.csv"]


def test_a_finished_write_replaces_with_the_usual_permissions(tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")
    with atomic_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    plain = tmp_path / "plain"
    plain.touch()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"expected to write .*absent/x\.csv, which failed"),
        atomic_file(tmp_path / "absent" / "x.csv"),
    ):
        pass
