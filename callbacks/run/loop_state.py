"""Where Lightning's fit loop stands, and moves that it has no method for. Written for Lightning 2.6."""

from typing import Any

from pytorch_lightning import Callback, Trainer

from callbacks.run.recipe import EPOCH_START_CALLBACKS
from callbacks.trainer_parts import callbacks_of


def epochs_done(trainer: Trainer) -> int:
    """Whole and broken-off epochs of the fit, the one that is just ending included."""
    current, _ = _counters(trainer.fit_loop.epoch_progress)
    return int(current.processed)


def epoch_index(trainer: Trainer) -> int:
    """Of the epoch that was begun last, from 0, also where the loop has counted it as done."""
    current, _ = _counters(trainer.fit_loop.epoch_progress)
    return int(current.started) - 1


def is_at_epoch_end(trainer: Trainer) -> bool:
    """Whether all batches of the epoch have been fetched."""
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def is_inside_step(trainer: Trainer) -> bool:
    """Whether gradients of further batches are to be added before the optimiser steps."""
    return trainer.fit_loop._should_accumulate()


def can_go_on_inside_epoch(trainer: Trainer) -> bool:
    """Whether a run that is resumed inside an epoch can be the same: neither sampler nor callbacks begin it anew."""
    starters = any(isinstance(callback, EPOCH_START_CALLBACKS) for callback in callbacks_of(trainer, Callback))
    return not (trainer.overfit_batches or starters)  # type: ignore[attr-defined]


def step_is_complete(trainer: Trainer) -> bool:
    """Whether all batches that were begun are done, and their gradients used up."""
    batches, _ = _counters(trainer.fit_loop.epoch_loop.batch_progress)
    return batches.ready == batches.processed > 0 and not is_inside_step(trainer)


def redo_validation_on_resume(trainer: Trainer) -> None:
    """Where all batches of the epoch are done, moves the counters to before its validation, which a resume repeats.

    Lightning takes a state between the last batch and the epoch's end for one whose validation is over, unless that
    has begun: so this one has, with a batch that is not done.
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
    """Runs the fit's validation after its last epoch, as part of it; a collective operation."""
    epoch, _ = _counters(trainer.fit_loop.epoch_progress)
    completed, epoch.completed = epoch.completed, epoch_index(trainer)
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    epoch.completed = completed


def _counters(progress: Any) -> tuple[Any, Any]:
    return progress.current, progress.total
