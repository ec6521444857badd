"""State of Lightning's fit loop, and changes to it that Lightning 2.6 has no method for."""

from typing import Any

from pytorch_lightning import Callback, Trainer

from callbacks.run.recipe import EPOCH_START_CALLBACKS
from callbacks.trainer_parts import callbacks_of


def epochs_done(trainer: Trainer) -> int:
    """Returns the number of epochs done, including those cut short and the one that is just ending."""
    current, _ = _counters(trainer.fit_loop.epoch_progress)
    return int(current.processed)


def epoch_index(trainer: Trainer) -> int:
    """Returns the index from 0 of the epoch that was started last, even if the loop has counted it as done."""
    current, _ = _counters(trainer.fit_loop.epoch_progress)
    return int(current.started) - 1


def is_at_epoch_end(trainer: Trainer) -> bool:
    """Returns whether all batches of the epoch have been fetched."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def is_inside_step(trainer: Trainer) -> bool:
    """Returns whether gradients of more batches will be accumulated before the optimiser steps."""
    return trainer.fit_loop._should_accumulate()


def can_go_on_inside_epoch(trainer: Trainer) -> bool:
    """Returns whether a run can resume inside an epoch: neither sampler nor callbacks have to restart it."""
    starters = any(isinstance(callback, EPOCH_START_CALLBACKS) for callback in callbacks_of(trainer, Callback))
    return not (trainer.overfit_batches or starters)  # type: ignore[attr-defined]


def step_is_complete(trainer: Trainer) -> bool:
    """Returns whether all batches that were started are done and their gradients have been applied."""
    batches, _ = _counters(trainer.fit_loop.epoch_loop.batch_progress)
    return batches.ready == batches.processed > 0 and not is_inside_step(trainer)


def redo_validation_on_resume(trainer: Trainer) -> None:
    """Moves the counters to before the validation, so that a resume repeats it, if all batches of the epoch are done.

    Lightning takes the state after the last batch for one after the validation, unless the validation has started and
    not finished, which is what the counters are made to say.
    """
    loop = trainer.fit_loop
    if not is_at_epoch_end(trainer):
        return
    for counters in _counters(loop.epoch_loop.batch_progress):
        counters.completed = counters.processed
    for counters in _counters(loop.epoch_progress):
        counters.processed = counters.completed = counters.started - 1
    for counters in _counters(loop.epoch_loop.val_loop.batch_progress):
        counters.ready, counters.started, counters.processed, counters.completed = 1, 1, 0, 0


def validate_now(trainer: Trainer) -> None:
    """Validates after the last epoch, as a part of the fit; a collective operation."""
    epoch, _ = _counters(trainer.fit_loop.epoch_progress)
    completed, epoch.completed = epoch.completed, epoch_index(trainer)
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    epoch.completed = completed


def _counters(progress: Any) -> tuple[Any, Any]:
    return progress.current, progress.total
