"""Data: from folders of photos to batches."""

from typing import TYPE_CHECKING, Any

from datamodules.class_index import ClassIndex

if TYPE_CHECKING:
    from datamodules.image_folder import ImageFolderDataModule

__all__ = ["ClassIndex", "ImageFolderDataModule"]


def __getattr__(name: str) -> Any:
    """Imports Lightning only where the data module is asked for: half the seconds in which a loader process starts."""
    if name == "ImageFolderDataModule":
        from datamodules.image_folder import ImageFolderDataModule

        return ImageFolderDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
