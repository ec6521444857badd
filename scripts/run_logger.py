"""Where a fit writes: a new ``runs/<name>/version_<k>/``, or the folder of the run that it resumes."""

import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from callbacks.run.run_folder import RUNS, RunFolder
from datamodules.files import own_files
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError
from datamodules.files.own_files import require_replaceable
from datamodules.split_names import require_outside_splits

LOCK = ".lock"
OF_ANY_START = re.compile(rf"events\.out\.tfevents|(config\.yaml|hparams\.yaml|{re.escape(LOCK)})$")


class RunLogger(TensorBoardLogger):
    """TensorBoard's logger, whose folder belongs to one run: made for it, and locked while it is at work.

    Own code, because Lightning takes the next free number and makes the folder later, so that two runs that begin
    together share one. Here the first process of all makes it where it is first asked for, which is after all of them
    have joined; the others get its name from there (``Trainer.log_dir``).
    """

    _made = False
    _lock: IO[str] | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Locks the folder before the event file is opened."""
        if self._lock is None:
            self._lock = lock(Path(self.log_dir))
        return super().experiment

    def _get_next_version(self) -> int:
        number = super()._get_next_version()
        while rank_zero_only.rank == 0 and not self._made:  # type: ignore[attr-defined]
            try:
                RunFolder.make(Path(self.root_dir), number)
                self._made = True
            except FileExistsError:
                number += 1
        return number

    def finalize(self, status: str) -> None:
        """Releases the folder, and removes it after a start that was refused."""
        super().finalize(status)
        if self._lock is None:
            return
        if status == "failed" and self._made and all(OF_ANY_START.match(name) for name in os.listdir(self.log_dir)):
            shutil.rmtree(self.log_dir, ignore_errors=True)
        self._lock.close()
        self._lock = None


def lock(folder: Path) -> IO[str]:
    """Holds a folder that one process at a time may work in, until the returned file is closed.

    Raises:
        UserError: Another process holds it, or its lock belongs to another user.
    """
    try:
        file = open(folder / LOCK, "a")  # noqa: SIM115
    except OSError as error:
        raise UserError(
            f"expected to write {folder / LOCK}, which failed ({error.strerror}): see to its permissions"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise _held(folder) from error
    except OSError:  # not every file system has locks
        pass
    return file


def require_unlocked(folder: Path) -> None:
    """Raises ``UserError`` where ``lock`` would; all processes of a run may ask at once."""
    with suppress(OSError), open(folder / LOCK) as file:  # there is none yet, or not every file system has locks
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder) from error


def _held(folder: Path) -> UserError:
    return UserError(
        f"expected {folder} to be free, another process is at work in it: wait until that ends, or choose another name"
    )


def require_run_name(name: str, option: str) -> None:
    """Checks that a name makes a folder below ``runs/``.

    Raises:
        UserError: It leads out of it, or to itself, or has characters that no name should have.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(ord(character) < 32 for character in name):
        raise UserError(
            f"expected {option} to name a folder below {RUNS}/, without .. or line breaks, got {name!r}: choose another"
        )


def open_logger(run_name: str, ckpt_path: str | None, epochs: int, data_root: Path) -> RunLogger:
    """The logger, whose folder is the run folder.

    Args:
        run_name: Name of the folder below ``runs/``.
        ckpt_path: What is resumed. ``last.ckpt`` in a run folder goes on there; from another file a new folder starts,
            so that nothing is overwritten.
        epochs: How many that run has finished: what it logged later is hidden, as it will be logged again.
        data_root: Of the data, in whose splits no run folder may lie.

    Raises:
        UserError: The folder cannot be written to, another process works in it, or a file in it is somebody else's.
    """
    if ckpt_path and (run := RunFolder.of_last(Path(ckpt_path))):
        require_writable(run.path, "--ckpt_path")
        require_unlocked(Path(os.path.relpath(run.path)))
        for path, kind in {
            run.manifest: own_files.RUN_MANIFEST,
            run.weights: own_files.WEIGHTS,
            run.best: own_files.CHECKPOINT,
            run.last: own_files.CHECKPOINT,
        }.items():
            require_replaceable(path, kind, "--ckpt_path")
        return RunLogger(
            os.path.relpath(run.path.parents[1]),
            run.name,
            version=run.version,
            default_hp_metric=False,
            purge_step=epochs,
        )
    option = "working directory or --run_name"
    require_outside_splits(RUNS, option, data_root)
    with suppress(OSError):
        (RUNS / run_name).mkdir(parents=True, exist_ok=True)
    require_writable(RUNS / run_name, option)
    return RunLogger(str(RUNS), run_name, default_hp_metric=False)
