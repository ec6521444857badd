"""Where a fit writes: a new ``runs/<name>/version_<k>/``, or the folder of the run that it resumes."""

import os
import re
from contextlib import suppress
from pathlib import Path

from pytorch_lightning.loggers import TensorBoardLogger

from callbacks.best_weights import CHECKPOINTS, LAST
from datamodules.atomic_file import require_writable

RUNS = Path("runs")


def find_last(run_name: str) -> Path | None:
    """The ``last.ckpt`` of ``runs/<run_name>/`` that was written last, or None."""
    found = (RUNS / run_name).glob(f"version_*/{CHECKPOINTS}/{LAST}")
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def open_logger(run_name: str, ckpt_path: str | None, epochs: int) -> TensorBoardLogger:
    """The logger, whose folder is the run folder.

    Args:
        run_name: Name of the folder below ``runs/``.
        ckpt_path: What is resumed. ``last.ckpt`` in a run folder goes on there; from another file a new folder starts,
            so that nothing is overwritten.
        epochs: How many that run has finished: what it logged later is hidden, as it will be logged again.

    Raises:
        UserError: The folder cannot be written to.
    """
    place = Path(ckpt_path or "").absolute()
    version = re.fullmatch(r"version_([0-9]+)", place.parent.parent.name)
    if version and place.name == LAST and place.parent.name == CHECKPOINTS:
        run_folder = place.parents[1]
        require_writable(run_folder, "--ckpt_path")
        return TensorBoardLogger(
            os.path.relpath(run_folder.parents[1]),
            run_folder.parent.name,
            version=int(version[1]),
            default_hp_metric=False,
            purge_step=epochs,
        )
    with suppress(OSError):
        (RUNS / run_name).mkdir(parents=True, exist_ok=True)
    require_writable(RUNS / run_name, "working directory or --run_name")
    return TensorBoardLogger(str(RUNS), run_name, default_hp_metric=False)


def goes_on_in(logger: TensorBoardLogger) -> bool:
    """Whether the run folder is one that was begun before."""
    return (Path(logger.log_dir) / CHECKPOINTS / LAST).exists()
