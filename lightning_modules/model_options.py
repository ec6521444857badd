"""Checks of the model's options, before anything takes time."""

import math
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import StochasticWeightAveraging

from datamodules.files.errors import UserError, listed


def require_usable_options(options: Mapping[str, Any]) -> None:
    """Raises ``UserError`` if an option of ``ImageClassifier`` is out of range, or if two exclude each other."""
    positive = ("restart_epochs", "restart_multiplier")
    numbers = ("learning_rate", "min_learning_rate", "weight_decay", "focal_gamma", "warmup_epochs")
    for name in (*numbers, "freeze_trunk_epochs", *positive):
        value, least = options[name], int(name in positive)
        if not (value >= least and math.isfinite(value)):
            raise UserError(f"--model.{name} must be a finite number of at least {least}, got {value}")
    for name, usual in {"focal_gamma": "0 to 5", "weight_decay": "1e-5 to 0.1"}.items():
        if options[name] > 100:  # far higher values give NaN, from which the cause would be hard to recognise
            raise UserError(f"--model.{name} must be at most 100, got {options[name]}: usual values are {usual}")
    if not 0 <= (smoothing := options["label_smoothing"]) < 1:
        raise UserError(
            f"--model.label_smoothing must be at least 0 and below 1, got {smoothing}: 0.1 is common, 0 turns it off"
        )
    if not 0 <= (ratio := options["trunk_learning_rate_ratio"]) <= 1:
        raise UserError(f"--model.trunk_learning_rate_ratio must be between 0 and 1, got {ratio}: 1 is the default")
    if not 0 < (decay := options["layer_decay"]) <= 1:
        raise UserError(f"--model.layer_decay must be above 0 and at most 1, got {decay}: 1 is the default")
    if options["warmup_epochs"] and options["schedule"] == "warm_restarts":
        raise UserError(
            f"--model.warmup_epochs {options['warmup_epochs']:g} has no effect with --model.schedule warm_restarts: "
            "choose cosine, or leave it out"
        )
    if options["zero_init_residual"] and options["weights"] != "none":
        raise UserError(
            f"--model.zero_init_residual true has no effect with --model.weights {options['weights']}, which replaces "
            "the initial values: pass --model.weights none, or --model.zero_init_residual false"
        )
    average = options["ema_decay"]
    if not (average == "auto" or 0 <= average < 1):
        raise UserError(f"--model.ema_decay must be auto, or at least 0 and below 1, got {average}: 0 turns it off")
    if options["compile"] == "full" and options["activation_checkpointing"]:
        raise UserError("--model.compile full does not work with --model.activation_checkpointing true: drop one")


def require_usable_length(trainer: Trainer, options: Mapping[str, Any], needs_length: list[str]) -> None:
    """Checks that a run is limited where an option depends on its length, and longer than what happens at its start.

    Args:
        trainer: Trainer of the run.
        options: Options of ``ImageClassifier``.
        needs_length: Options of model and data, as they are typed, whose effect depends on the length of the run.

    Raises:
        UserError: It is not.
    """
    epochs = trainer.max_epochs
    if needs_length and trainer.max_steps < 0 and (epochs is None or epochs < 0):
        raise UserError(
            f"the length of the run must be known for {listed(needs_length)}, but no limit is given: pass "
            "--trainer.max_epochs or --trainer.max_steps"
        )
    if epochs is None or epochs < 0 or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    for name in ("warmup_epochs", "freeze_trunk_epochs"):
        if 0 < options[name] >= epochs:
            raise UserError(
                f"--model.{name} {options[name]:g} must be less than --trainer.max_epochs {epochs}: lower it, or train "
                "longer"
            )


def require_falling_rate(options: Mapping[str, Any]) -> None:
    """Raises ``UserError`` if the schedule would rise; not in the constructor, as a tuner may choose a lower rate."""
    rate, minimum = options["learning_rate"], options["min_learning_rate"]
    if minimum > rate:
        raise UserError(
            f"--model.min_learning_rate {minimum:g} is above --model.learning_rate {rate:g}, so that the schedule "
            "would rise: lower the first or raise the second"
        )


def require_usable_rates(trainer: Trainer, options: Mapping[str, Any]) -> None:
    """Checks learning rates as they were given, before a tuner looks for others.

    Args:
        trainer: Trainer of the run.
        options: Options of ``ImageClassifier``.

    Raises:
        UserError: The schedule would rise, or a callback would replace the rates of parts of the network.
    """
    require_falling_rate(options)
    by_part = {"trunk_learning_rate_ratio": 1, "layer_decay": 1, "freeze_trunk_epochs": 0}
    given = [f"--model.{name} {options[name]:g}" for name, off in by_part.items() if options[name] != off]
    if given and any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise UserError(
            f"{listed(given)} cannot be combined with StochasticWeightAveraging, which gives all parameters a learning "
            "rate of its own: leave one of them out"
        )
