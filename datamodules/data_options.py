"""Checks of the data module's options, before anything takes time; ``TrainingRecipe`` checks its own."""

import os
from collections.abc import Mapping
from typing import Any

from datamodules.files.errors import UserError


def require_usable_options(options: Mapping[str, Any]) -> None:
    """Raises ``UserError`` if an option of ``ImageFolderDataModule`` is out of range, or if two exclude each other."""
    positive = ("image_size", "batch_size", "max_pixels")
    for name in (*positive, "num_workers", "worker_timeout"):
        if (options[name] or 0) < (floor := int(name in positive)):
            raise UserError(f"--data.{name} must be at least {floor}, got {options[name]}")
    if not 0 < options["val_fraction"] < 1:
        raise UserError(
            f"--data.val_fraction must be between 0 and 1, got {options['val_fraction']}: 0.1 is the default"
        )
    if options["cache"] != "none" and options["augmentation"] == "reference":
        raise UserError(
            f"--data.cache {options['cache']} cannot be combined with --data.augmentation reference, which crops whole "
            "photos: leave one of them out"
        )
    if options["split_column"] and not options["labels"]:
        raise UserError(
            "--data.split_column names a column of --data.labels, which is not given: name that file too, or leave the "
            "option out"
        )
    if not os.path.isdir(options["root"]):
        raise UserError(f"there is no folder at {options['root']} (--data.root): check the path")
