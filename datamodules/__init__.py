"""Data: from folders of photos to batches."""

from datamodules.class_index import ClassIndex
from datamodules.image_folder import ImageFolderDataModule

__all__ = ["ClassIndex", "ImageFolderDataModule"]
