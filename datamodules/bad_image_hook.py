"""The hook by which the data module hands unreadable images to callbacks; ``callbacks/guards/bad_images`` decides."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from pytorch_lightning import Trainer

from datamodules.images.read import ImageReadError


@runtime_checkable
class UnreadableImageHandler(Protocol):
    """Interface of callbacks that handle unreadable images."""

    def on_unreadable_images(self, trainer: Trainer, errors: Sequence[ImageReadError]) -> bool:
        """Called in the main process before the batch is used, with one error for each file.

        Returns:
            Whether the errors are handled. If no callback handles them, the first is raised.
        """
        ...


def hand_over(errors: Sequence[ImageReadError], trainer: Trainer | None) -> None:
    """Passes the errors to every callback of the trainer that is an ``UnreadableImageHandler``.

    Raises:
        ImageReadError: The machine is to blame for one, or no callback handles them.
    """
    if machine := [error for error in errors if error.machine]:
        raise machine[0]
    callbacks: list[Any] = trainer.callbacks if trainer else []  # type: ignore[attr-defined]
    handlers = [callback for callback in callbacks if isinstance(callback, UnreadableImageHandler)]
    if not trainer or not any([handler.on_unreadable_images(trainer, errors) for handler in handlers]):  # each is asked
        raise errors[0]
