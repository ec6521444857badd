"""Parts of a Trainer with their types: Lightning sets them in its connectors, where no type checker sees them."""

from typing import TypeVar

from pytorch_lightning import Callback, Trainer

from datamodules.image_folder import ImageFolderDataModule

Kind = TypeVar("Kind", bound=Callback)


def callbacks_of(trainer: Trainer, kind: type[Kind]) -> list[Kind]:
    """Its callbacks of a kind (``Callback`` for all), in their order."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def data_of(trainer: Trainer) -> ImageFolderDataModule:
    """Its data module."""
    return trainer.datamodule  # type: ignore[attr-defined]


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Whether it only tries whether everything runs, and leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
