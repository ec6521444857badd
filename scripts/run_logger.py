"""The logger of a fit, which writes to a new ``runs/<name>/version_<k>/`` or to the folder of the resumed run."""

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
from typing_extensions import override

from callbacks.run.run_folder import RUNS, RunFolder
from datamodules.files import own_files
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError
from datamodules.files.own_files import require_replaceable
from datamodules.split_names import require_outside_splits

LOCK = ".lock"
FILES_OF_A_START = re.compile(rf"events\.out\.tfevents|(config\.yaml|hparams\.yaml|{re.escape(LOCK)})$")


class RunLogger(TensorBoardLogger):
    """TensorBoard logger whose folder belongs to one run: created for it, and locked until the run ends.

    Lightning's logger picks the next free version but creates the folder later, so that two runs that start together
    share one. Here the first process creates it when its name is first needed, which is after all processes have
    joined; the others get the name from it (``Trainer.log_dir``).
    """

    _made = False
    _lock: IO[str] | None = None

    @property
    @rank_zero_experiment
    @override
    def experiment(self) -> Any:
        if self._lock is None:  # before the event file is opened
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

    @override
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._lock is None:
            return
        # The folder of a start that was refused holds nothing to keep.
        if status == "failed" and self._made and all(FILES_OF_A_START.match(name) for name in os.listdir(self.log_dir)):
            shutil.rmtree(self.log_dir, ignore_errors=True)
        self._lock.close()
        self._lock = None


def lock(folder: Path) -> IO[str]:
    """Locks a folder for this process, until the returned file is closed.

    Raises:
        UserError: Another process has locked it, or the lock file cannot be opened.
    """
    try:
        file = open(folder / LOCK, "a")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write {folder / LOCK} ({error.strerror}): check its permissions") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise _held(folder) from error
    except OSError:  # the file system may lack locks
        pass
    return file


def require_unlocked(folder: Path) -> None:
    """Raises ``UserError`` if a process has locked the folder; all processes of a run may ask at the same time."""
    with suppress(OSError), open(folder / LOCK) as file:  # no lock yet, or no locks on this file system
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder) from error


def _held(folder: Path) -> UserError:
    return UserError(f"another process is using {folder}: wait until it ends, or choose another name")


def require_run_name(name: str, option: str) -> None:
    """Raises ``UserError`` unless a name, which came with ``option``, leads to a folder below ``runs/``.

    Example:
        >>> require_run_name("ablation/seed_1", "--run_name")
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(ord(character) < 32 for character in name):
        raise UserError(
            f"{option} must name a folder below {RUNS}/, without .. or control characters, got {name!r}: choose another"
        )


def open_logger(run_name: str, ckpt_path: str | None, epochs: int, data_root: Path) -> RunLogger:
    """Returns the logger of a fit, whose folder is the run folder.

    Args:
        run_name: Name of the folder below ``runs/``.
        ckpt_path: Checkpoint that is resumed. The ``last.ckpt`` of a run folder continues in that folder; any other
            file starts a new one, so that nothing is overwritten.
        epochs: Number of epochs in the checkpoint; what was logged after them is hidden, as it will be logged again.
        data_root: Root of the data, in whose splits no run folder may lie.

    Raises:
        UserError: The folder cannot be written to, another process is using it, or a file in it is not a run's.
    """
    if ckpt_path and (run := RunFolder.of_last(Path(ckpt_path))):
        require_writable(run.path, "--ckpt_path")
        require_unlocked(Path(os.path.relpath(run.path)))
        require_replaceable(run.manifest, own_files.RUN_MANIFEST, "--ckpt_path")
        require_replaceable(run.weights, own_files.WEIGHTS, "--ckpt_path")
        for checkpoint in (run.best, run.last):
            require_replaceable(checkpoint, own_files.CHECKPOINT, "--ckpt_path")
        root = os.path.relpath(run.path.parents[1])
        return RunLogger(root, run.name, version=run.version, default_hp_metric=False, purge_step=epochs)
    option = "working directory or --run_name"
    require_outside_splits(RUNS, option, data_root)
    with suppress(OSError):
        (RUNS / run_name).mkdir(parents=True, exist_ok=True)
    require_writable(RUNS / run_name, option)
    return RunLogger(str(RUNS), run_name, default_hp_metric=False)
