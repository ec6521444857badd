"""Ending a run on a signal without losing progress."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from callbacks.processes import agree, agreement_is_due, end_beside
from callbacks.run.checkpoints import BestWeights
from callbacks.trainer_parts import callbacks_of
from datamodules.workers.process import SIGNALS


class Interruption(Callback):
    """Ends all processes together after a signal to any of them: a fit once its step is done and ``last.ckpt`` written.

    A validation within a fit is finished first, or its epoch would be lost. validate, test and predict stop after the
    batch. The exit code is 128 plus the signal's number. Ctrl-C after a signal ends a process at once; other signals do
    not, because one request often arrives twice: from ``timeout`` or torchrun, and through the process group. Replaces
    Lightning 2.6's handler, which ignores SIGTERM outside training, saves nothing, broadcasts, which hangs if only one
    process got the signal, and under SLURM saves in the middle of a step.
    """

    def __init__(self) -> None:
        self._received = 0  # signal number that this process got
        self._agreed = 0  # signal number that any process got

    def _listen(self, trainer: Trainer) -> None:
        """Replaces the handlers that Lightning has just installed; at its end it restores the original ones."""
        if threading.current_thread() is threading.main_thread():
            for number in filter(is_ours, SIGNALS):
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None):
            _let_go_of_the_terminal()
        if self._received:
            return
        self._received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not print, which the signal may have interrupted
        text = f"cbam100: {signal.Signals(number).name}: ending after this step or validation; Ctrl-C ends at once\n"
        with suppress(OSError):
            os.write(2, text.encode())

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._received:
            self._listen(trainer)

    on_sanity_check_start = on_test_start = on_predict_start = on_train_start

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._listen(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._agreed and agreement_is_due(trainer, batch_idx):
            self._agreed = agree(trainer, self._received)
        if self._agreed and all(saver.save_inside_epoch(trainer) for saver in callbacks_of(trainer, BestWeights)):
            raise end_beside(trainer, 128 + self._agreed)

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if number := agree(trainer, self._received):  # in the last epoch's validation, which is saved by now
            raise end_beside(trainer, 128 + number)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # A validation inside a fit is finished first.
        inside_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not inside_fit and agreement_is_due(trainer, batch_idx) and (number := agree(trainer, self._received)):
            raise end_beside(trainer, 128 + number)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end


def is_ours(number: int) -> bool:
    """Returns whether to handle this signal: not if ``nohup``, or another parent, has set it to be ignored."""
    return number in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(number) != signal.SIG_IGN


def _let_go_of_the_terminal() -> None:
    """Redirects output to a terminal that is gone to nowhere; writing to it would raise and cost the epoch."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
