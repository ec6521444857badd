"""What a fit takes from the checkpoint that it resumes, before anything is built."""

import pkgutil
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning.callbacks import StochasticWeightAveraging
from pytorch_lightning.utilities import rank_zero_only

from callbacks.run.exact_resume import TUNERS, saved_recipe, tuned_batch_size
from callbacks.run.run_folder import RUNS, RunFolder
from datamodules.files.errors import UserError
from lightning_modules.trained_model import TrainedModel, read_trained_model, require_weights
from lightning_modules.weights.weights_file import SAFETENSORS_SUFFIX


def read_resumed(config: Namespace) -> TrainedModel | None:
    """Reads the checkpoint of ``--ckpt_path``, and puts its path and what a tuner found in that run into ``config``.

    Args:
        config: Settings of ``fit``, with a run name.

    Returns:
        What the checkpoint holds; None where a new run starts.

    Raises:
        UserError: The checkpoint cannot be read or resumed, or has done more epochs than the run is to have.
    """
    if config.ckpt_path == "last":
        if config.trainer.logger not in (None, True):
            raise UserError(
                f"--ckpt_path last looks in runs/{config.run_name}, where a run with another --trainer.logger does not "
                "write: pass the path of its last.ckpt"
            )
        found = RunFolder.newest(config.run_name)
        config.ckpt_path = str(found.last) if found else None
        if not found:  # not an error, so that a job that is requeued has one command from its first start
            rank_zero_only(print)(f"no last.ckpt in {RUNS / config.run_name} yet: starting a new run")
    if not config.ckpt_path:
        return None
    require_weights(Path(config.ckpt_path))
    trained = read_trained_model(Path(config.ckpt_path))
    if Path(config.ckpt_path).suffix == SAFETENSORS_SUFFIX:
        raise UserError(
            f"{config.ckpt_path} holds only weights, from which no run can be resumed: pass last.ckpt, or start a new "
            "run from these weights with --model.weights"
        )
    _compare_length(config, trained)
    if batch_size := tuned_batch_size(trained.checkpoint):
        tuners = entries_of_type(config.trainer.callbacks, TUNERS)  # they do not search again
        config.trainer.callbacks = [x for x in as_list(config.trainer.callbacks) if x not in tuners] or None
        learning_rate = config.model.learning_rate = trained.model["learning_rate"]
        config.data.batch_size = batch_size
        rank_zero_only(print)(f"tuned earlier: learning rate {learning_rate:.4g}, batch size {batch_size}")
    return trained


def _compare_length(config: Namespace, trained: TrainedModel) -> None:
    max_steps, max_epochs = config.trainer.max_steps, config.trainer.max_epochs
    ends = [("steps", trained.steps)] if 0 <= max_steps <= trained.steps else []
    if max_epochs is not None and max_epochs >= 0:
        # Stochastic weight averaging adds an epoch.
        last = max_epochs + bool(entries_of_type(config.trainer.callbacks, StochasticWeightAveraging))
        if last < trained.epochs:
            raise UserError(
                f"--trainer.max_epochs is {max_epochs}, but {config.ckpt_path} has already trained for "
                f"{trained.epochs} epochs: raise it, or start a new run without --ckpt_path"
            )
        ends += [("epochs", trained.epochs)] if last == trained.epochs else []
    can_go_on = "max_epochs" not in saved_recipe(trained.checkpoint)  # which it holds where the length matters
    for unit, done in ends:
        way_on = f"; raise --trainer.max_{unit} to go on" if can_go_on else ""
        rank_zero_only(print)(f"{config.ckpt_path} has done its {done} {unit}: nothing is left to do{way_on}")


def as_list(value: Any) -> list[Any]:
    """Returns the values of an option that takes one, several or none.

    Example:
        >>> as_list(None), as_list("a"), as_list(["a", "b"])
        ([], ['a'], ['a', 'b'])
    """
    return value if isinstance(value, list) else [] if value is None else [value]


def entries_of_type(callbacks: Any, types: type | tuple[type, ...]) -> list[Any]:
    """Returns the entries of ``--trainer.callbacks``, as they are before instantiation, whose class is of a type."""
    return [entry for entry in as_list(callbacks) if issubclass(pkgutil.resolve_name(entry["class_path"]), types)]
