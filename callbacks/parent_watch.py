"""Ends the processes of a run whose launcher is gone."""

from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules.parent_watch import end_with_parent


class ParentWatch(Callback):
    """Kills the process, of several on a machine, whose parent has died.

    Own code, because Lightning looks after one direction only: its first process ends when another dies, but the others
    go on when the first is killed, until a collective operation fails, which in an evaluation may be hours later.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the watch on every process but the machine's first, whose parent is the user's shell."""
        if trainer.local_rank > 0:
            end_with_parent()
