"""Typed access to attributes of a Trainer that Lightning sets where no type checker sees them."""

from typing import TypeVar

from pytorch_lightning import Callback, Trainer

from datamodules.image_folder import ImageFolderDataModule

Kind = TypeVar("Kind", bound=Callback)


def callbacks_of(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """Returns the Trainer's callbacks of a kind (``Callback`` for all), in order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def data_of(trainer: Trainer) -> ImageFolderDataModule:
    """Returns the Trainer's data module."""
    return trainer.datamodule  # type: ignore[attr-defined]


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Returns whether this is a trial run of a few batches, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
