import os
import resource
import subprocess

import pytest
import torch

from callbacks import CheckpointFile
from datamodules.files.atomic_file import atomic_file, remove_leftovers
from datamodules.files.errors import UserError

OLD, NEW = {"x": torch.zeros(1000)}, {"x": torch.ones(400_000)}  # 4 kB, and 1.6 MB that do not fit


def save_new_over_old(folder):
    """Writes OLD and then NEW, and returns the error; whatever happens, OLD must still load."""
    path = folder / "last.ckpt"
    CheckpointFile().save_checkpoint(OLD, path)
    with pytest.raises(UserError) as caught:
        CheckpointFile().save_checkpoint(NEW, path)
    assert torch.equal(CheckpointFile().load_checkpoint(path)["x"], OLD["x"])
    assert os.listdir(folder) == ["last.ckpt"]
    return str(caught.value)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_the_old_file_stays(small_disk):
    error = save_new_over_old(small_disk)
    assert f"cannot write {small_disk}/last.ckpt ([Errno 28] No space left on device" in error


def test_a_file_size_limit_is_named_and_the_old_file_stays(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        error = save_new_over_old(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"cannot write {tmp_path}/last.ckpt ([Errno 27] File too large" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_refused_permission_is_an_error(tmp_path):
    CheckpointFile().save_checkpoint(OLD, tmp_path / "last.ckpt")
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot write .*last\.ckpt \("):
        CheckpointFile().save_checkpoint(NEW, tmp_path / "last.ckpt")


def test_leftovers_of_killed_processes_go_and_files_being_written_stay(tmp_path):
    (tmp_path / ".last.ckpt.abc.part").write_text("half")
    (tmp_path / "last.ckpt").write_text("whole")
    with atomic_file(tmp_path / "other.ckpt") as temporary:
        remove_leftovers(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted([temporary.name, "last.ckpt"])
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "other.ckpt"]


def test_weights_only_cannot_be_switched_off(tmp_path):
    torch.save({"x": object()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="with tensors and plain values only"):
        CheckpointFile().load_checkpoint(tmp_path / "x.ckpt", weights_only=False)
