"""Ends a run on SIGTERM or Ctrl-C where nothing is lost."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.best_weights import BestWeights
from callbacks.processes import agree, agreement_is_due, end_beside

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption(Callback):
    """After a signal to any process, all end together: a fit once its step is done and ``last.ckpt`` written.

    A validation within a fit is finished first, as its epoch would be lost without it. validate, test and predict stop
    after the batch. A second signal ends a process at once. The exit code is 128 and the signal's number. Own code,
    because Lightning 2.6 ignores SIGTERM outside training, saves nothing on it, and in its handler broadcasts, which
    hangs where only one process got the signal.
    """

    def __init__(self) -> None:
        self._received = 0  # by this process
        self._agreed = 0  # received by one of all

    def _listen(self, trainer: Trainer) -> None:
        """Replaces the handlers that Lightning has just installed; it puts the original ones back at its end."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not print, which a signal may have interrupted
        os.write(2, f"cbam100: {signal.Signals(number).name}: ending after this step\n".encode())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to listen, unless that was done and a signal came."""
        if not self._received:
            self._listen(trainer)

    on_sanity_check_start = on_test_start = on_predict_start = on_train_start

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to listen, where it is not part of a fit."""
        if trainer.state.fn == "validate":
            self._listen(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends, unless the epoch does, whose results are not yet saved."""
        if not self._agreed and agreement_is_due(trainer, batch_idx):
            self._agreed = agree(trainer, self._received)
        if self._agreed:
            savers = [callback for callback in trainer.callbacks if isinstance(callback, BestWeights)]  # type: ignore[attr-defined]
            if all(saver.save_inside_epoch(trainer) for saver in savers):
                raise end_beside(trainer, 128 + self._agreed)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends: what was received in the last epoch's validation, which is saved by now."""
        if number := agree(trainer, self._received):
            raise end_beside(trainer, 128 + number)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Ends, unless within a fit."""
        inside_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not inside_fit and agreement_is_due(trainer, batch_idx) and (number := agree(trainer, self._received)):
            raise end_beside(trainer, 128 + number)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
