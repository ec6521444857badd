"""The logger of a fit, which writes to a new ``runs/<name>/version_<k>/`` or to the folder of the resumed run."""

import os
import re
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from callbacks.run.run_folder import RUNS, RunFolder
from datamodules.files import own_files
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError
from datamodules.files.locks import LOCK, locked, require_unlocked
from datamodules.files.own_files import require_replaceable
from datamodules.split_names import place_below, require_outside_splits

# Windows has no such names, and a backslash or a colon would lead out of runs/ there.
NOT_IN_A_NAME = '\\:*?"<>|' if os.name == "nt" else ""
FILES_OF_A_START = re.compile(rf"events\.out\.tfevents|(config\.yaml|hparams\.yaml|{re.escape(LOCK)})$")


class RunLogger(TensorBoardLogger):
    """TensorBoard logger whose folder belongs to one run: created for it, and locked until the run ends.

    Lightning's logger picks the next free version but creates the folder later, so that two runs that start together
    share one. Here the first process creates it when its name is first needed, which is after all processes have
    joined; the others get the name from it (``Trainer.log_dir``).
    """

    _made = False
    _lock: ExitStack | None = None

    @property
    @rank_zero_experiment
    @override
    def experiment(self) -> Any:
        if self._lock is None:  # before the event file is opened
            lock = ExitStack()
            lock.enter_context(locked(Path(self.log_dir)))
            self._lock = lock
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
        self._lock.close()
        self._lock = None
        # The folder of a start that was refused holds nothing to keep.
        if status == "failed" and self._made and all(FILES_OF_A_START.match(name) for name in os.listdir(self.log_dir)):
            shutil.rmtree(self.log_dir, ignore_errors=True)


def require_run_name(name: str, option: str) -> None:
    """Raises ``UserError`` unless a name, which came with ``option``, leads to a folder below ``runs/``.

    Example:
        >>> require_run_name("ablation/seed_1", "--run_name")
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or any(
        ord(x) < 32 or 0xD800 <= ord(x) < 0xE000 or x in NOT_IN_A_NAME for x in name
    ):
        without = f".., {' '.join(NOT_IN_A_NAME)}" if NOT_IN_A_NAME else ".."
        raise UserError(
            f"{option} must name a folder below {RUNS}/, without {without} or control characters, got {name!r}: choose "
            "another"
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
        require_unlocked(Path(place_below(run.path, Path())))
        require_replaceable(run.manifest, own_files.RUN_MANIFEST, "--ckpt_path")
        require_replaceable(run.weights, own_files.WEIGHTS, "--ckpt_path")
        for checkpoint in (run.best, run.last):
            require_replaceable(checkpoint, own_files.CHECKPOINT, "--ckpt_path")
        root = place_below(run.path.parents[1], Path())
        return RunLogger(root, run.name, version=run.version, default_hp_metric=False, purge_step=epochs)
    option = "working directory or --run_name"
    require_outside_splits(RUNS, option, data_root)
    with suppress(OSError):
        (RUNS / run_name).mkdir(parents=True, exist_ok=True)
    require_writable(RUNS / run_name, option)
    return RunLogger(str(RUNS), run_name, default_hp_metric=False)
