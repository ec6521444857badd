"""Ends a run on a signal where nothing is lost."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.processes import agree, agreement_is_due, end_beside
from callbacks.run.checkpoints import BestWeights
from callbacks.trainer_parts import callbacks_of
from datamodules.workers.process import SIGNALS


class Interruption(Callback):
    """After a signal to any process, all end together: a fit once its step is done and ``last.ckpt`` written.

    A validation within a fit is finished first, as its epoch would be lost without it. validate, test and predict stop
    after the batch. The exit code is 128 and the signal's number. Ctrl-C after a signal ends a process at once; others
    do not, because one request often comes as two: from ``timeout`` or torchrun, and through the group. Own code,
    because Lightning 2.6 ignores SIGTERM outside training, saves nothing on it, in its handler broadcasts, which hangs
    where only one process got the signal, and under SLURM saves in the middle of a step.
    """

    def __init__(self) -> None:
        self._received = 0  # by this process
        self._agreed = 0  # received by one of all

    def _listen(self, trainer: Trainer) -> None:
        """Replaces the handlers that Lightning has just installed; it puts the original ones back at its end."""
        if threading.current_thread() is threading.main_thread():
            for number in filter(is_ours, SIGNALS):
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _let_go_of_the_terminal()
        if self._received:
            return
        self._received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not print, which a signal may have interrupted
        text = f"cbam100: {signal.Signals(number).name}: ending after this step or validation; Ctrl-C ends at once\n"
        with suppress(OSError):
            os.write(2, text.encode())

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
        if self._agreed and all(saver.save_inside_epoch(trainer) for saver in callbacks_of(trainer, BestWeights)):
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


def is_ours(number: int) -> bool:
    """Whether to answer this signal: not where ``nohup``, or whoever else started this process, has it ignored."""
    return number in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(number) != signal.SIG_IGN


def _let_go_of_the_terminal() -> None:
    """Has what would be printed to a terminal that is gone vanish, where it would be an error and cost the epoch."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
