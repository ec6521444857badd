"""Checks of the data module's options, before anything takes time; ``TrainingRecipe`` checks its own."""

import re
from collections.abc import Mapping
from typing import Any

from datamodules.files.errors import UserError
from datamodules.split_names import require_root

DEFAULT_VAL_FRACTION = 0.1


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
    _require_usable_division(options)
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
    require_root(options["root"])


def _require_usable_division(options: Mapping[str, Any]) -> None:
    folds, fold, pattern = options["folds"], options["fold"], options["group_pattern"]
    if folds < 0 or folds == 1:
        raise UserError(f"--data.folds must be 2 or more, or 0 for none, got {folds}: 5 is usual")
    if not folds and fold:
        raise UserError(f"--data.fold {fold} needs --data.folds, the number of folds that it is one of: pass it too")
    if folds and not 0 <= fold < folds:
        raise UserError(f"--data.fold must be from 0 to {folds - 1} with --data.folds {folds}, got {fold}")
    if folds and options["val_fraction"] != DEFAULT_VAL_FRACTION:
        raise UserError(
            f"--data.val_fraction {options['val_fraction']} has no effect with --data.folds {folds}, one of which "
            "validates: leave one of them out"
        )
    if not 0 < options["fraction"] <= 1:
        raise UserError(f"--data.fraction must be above 0 and at most 1, got {options['fraction']}: 1 is the default")
    if pattern is None:
        return
    if options["group_column"] is not None:
        raise UserError(
            f"--data.group_column {options['group_column']} and --data.group_pattern {pattern} both say which images "
            "belong together: leave one of them out"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--data.group_pattern {pattern} is not a regular expression of Python ({error}): correct it, as in "
            "'cow[0-9]+'"
        ) from error
