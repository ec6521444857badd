"""Checks of Lightning's callbacks that end a run early, and of whether a resumed run was ended by one."""

from datetime import timedelta
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from typing_extensions import override

from callbacks.run.exact_resume import resumed_from
from callbacks.run.loop_state import is_at_epoch_end
from callbacks.trainer_parts import callbacks_of
from datamodules.files.errors import UserError
from lightning_modules.classifier import ImageClassifier
from lightning_modules.metrics.temperature import CALIBRATED


class Stopping(Callback):
    """Checks the metrics that Lightning's stopping callbacks watch, and keeps a run that they ended from going on.

    A command that is repeated, as a job queue may do, trains no further epoch.
    """

    def __init__(self) -> None:
        self._patience: dict[EarlyStopping, int] = {}
        self._before_validation: dict[EarlyStopping, dict[str, Any]] = {}  # the callbacks' states

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or not isinstance(pl_module, ImageClassifier):
            return
        known = {str(name) for metrics in (pl_module.train_metrics, pl_module.val_metrics) for name in metrics}
        known |= {*CALIBRATED} if pl_module.hparams["temperature"] == "fit" else set()
        for callback in callbacks_of(trainer, Callback):
            if isinstance(callback, ModelCheckpoint) and not callback.dirpath and callback.filename in ("best", "last"):
                raise UserError(
                    f"ModelCheckpoint would overwrite the run's {callback.filename}.ckpt: give it another filename"
                )
            if isinstance(callback, EarlyStopping):
                self._patience[callback] = callback.patience  # which loading a checkpoint would replace
            if not isinstance(callback, EarlyStopping | ModelCheckpoint) or callback.monitor in (None, *known):
                continue
            name = type(callback).__name__
            choices = ", ".join(sorted(known))
            if any(_may_log(other, str(callback.monitor)) for other in callbacks_of(trainer, Callback)):
                rank_zero_warn(
                    f"{name} watches {callback.monitor}, which is none of {choices}: one of your callbacks must log it"
                )
            else:
                raise UserError(f"{name} watches {callback.monitor}, which is not logged: choose one of {choices}")

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in callbacks_of(trainer, Callback) if resumed_from(trainer) else ():
            if isinstance(callback, EarlyStopping):
                stopped = self._has_stopped(callback)
                trainer.should_stop |= stopped
                if stopped and not (trainer.min_epochs or trainer.min_steps):
                    rank_zero_only(print)(
                        f"this run was stopped early ({callback.stopping_reason_message}), nothing is left to do: to "
                        "continue, raise the patience or leave EarlyStopping out"
                    )
            elif isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
                rank_zero_only(print)(
                    f"this run has used up its time ({timedelta(seconds=round(callback.time_elapsed()))} over all "
                    "starts), nothing is left to do: to continue, raise --trainer.max_time"
                )

    def _has_stopped(self, callback: EarlyStopping) -> bool:
        """Returns whether the callback ended the run that is resumed; a patience that was raised since counts."""
        before, callback.patience = callback.patience, self._patience[callback]
        by_patience = callback.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED
        if by_patience and callback.patience != before and callback.wait_count < callback.patience:
            callback.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        return callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before_validation = {}

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._before_validation = {callback: callback.state_dict() for callback in self._patience}

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # BestWeights saves a state from which the validation is repeated: nothing of it may be counted twice.
        for callback, state in self._before_validation.items() if is_at_epoch_end(trainer) else ():
            callback.load_state_dict(state)


def _may_log(callback: Callback, name: str) -> bool:
    if isinstance(callback, LearningRateMonitor):
        return name.startswith("lr")
    return type(callback).__module__.split(".")[0] not in ("pytorch_lightning", "callbacks")
