import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from datamodules.files import locks
from datamodules.files.errors import UserError
from datamodules.files.locks import LOCK, locked, mark_as_used, remove_unless_used, require_unlocked


def test_a_folder_is_locked_until_its_process_ends(tmp_path):
    code = "import sys; from pathlib import Path; from datamodules.files.locks import locked\n"
    code += "with locked(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"another process is using {tmp_path}: wait until it ends, or choose"):
            require_unlocked(tmp_path)
        process.send_signal(signal.SIGKILL)
    with locked(tmp_path), pytest.raises(UserError, match="another process"):
        require_unlocked(tmp_path)
    require_unlocked(tmp_path)


def test_the_processes_of_a_run_may_ask_at_the_same_time(tmp_path):
    with ThreadPoolExecutor(8) as pool:  # each with an open file of its own, as processes have
        list(pool.map(require_unlocked, [tmp_path] * 100))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_worked_on_all_the_same(number, tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with locked(tmp_path), locked(tmp_path):
        assert os.listdir(tmp_path) in ([LOCK], [])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=rf"cannot write {tmp_path}/absent/\.lock \(No such file"),
        locked(tmp_path / "absent"),
    ):
        pass


def test_a_file_in_use_is_not_removed(tmp_path):
    file, beside = tmp_path / "x", tmp_path / "y"
    file.touch(), beside.touch()
    with open(file) as one, open(file) as other:
        mark_as_used(one.fileno())
        mark_as_used(other.fileno())
        remove_unless_used(file, beside)
        assert sorted(os.listdir(tmp_path)) == ["x", "y"]
    remove_unless_used(file, beside)
    assert os.listdir(tmp_path) == []


def test_where_open_files_cannot_be_removed_no_mark_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "OPEN_FILES_CAN_BE_REMOVED", False)
    file = tmp_path / "x"
    file.touch()
    with open(file) as opened:
        mark_as_used(opened.fileno(), by_one=True)
    remove_unless_used(file)
    assert os.listdir(tmp_path) == []
