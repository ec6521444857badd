"""Checks of the model's options, before anything takes time."""

import math
from collections.abc import Mapping
from typing import Any

from datamodules.files.errors import UserError


def require_usable_options(options: Mapping[str, Any]) -> None:
    """Raises ``UserError`` if an option of ``ImageClassifier`` is out of range, or if two exclude each other."""
    positive = ("restart_epochs", "restart_multiplier")
    for name in ("learning_rate", "min_learning_rate", "weight_decay", "focal_gamma", *positive):
        value, least = options[name], int(name in positive)
        if not (value >= least and math.isfinite(value)):
            raise UserError(f"--model.{name} must be a finite number of at least {least}, got {value}")
    decay = options["ema_decay"]
    if not (decay == "auto" or 0 <= decay < 1):
        raise UserError(f"--model.ema_decay must be auto, or at least 0 and below 1, got {decay}: 0 turns it off")
    if options["compile"] == "full" and options["activation_checkpointing"]:
        raise UserError("--model.compile full does not work with --model.activation_checkpointing true: drop one")
