"""Ends a process whose launcher is gone."""

import os
import signal
import threading
import time

from pytorch_lightning import Callback, LightningModule, Trainer

SECONDS_BETWEEN_LOOKS = 2.0


class ParentWatch(Callback):
    """Kills the process, of several on a machine, whose parent has died.

    Own code, because Lightning looks after one direction only: its first process ends when another dies, but the others
    go on when the first is killed, until a collective operation fails, which in an evaluation may be hours later. A
    thread, because a process that waits in a collective operation runs no hook; SIGKILL, because it handles no signal.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the watch on every process but the machine's first, whose parent is the user's shell."""
        if trainer.local_rank > 0:
            threading.Thread(target=_watch, args=(os.getppid(),), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)
