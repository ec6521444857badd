"""``config.yaml`` of a run folder: the settings of its latest start, ready for ``fit --config``."""

from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser
from typing_extensions import override

from callbacks.run.run_folder import RunFolder
from callbacks.trainer_parts import is_fast_dev_run
from datamodules.files.atomic_file import write_bytes

NOT_KEPT = ("ckpt_path",)  # a recipe that is repeated does not resume


class RunConfig(Callback):
    """Writes ``config.yaml``; Lightning's callback keeps those of the first start, and can leave a torn file.

    Args:
        settings: Settings as returned by ``plain_settings``.

    Attributes:
        changed: Options that differ from the previous start in this run folder: ``{option: [old, new]}``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self.changed: dict[str, list[Any]] = {}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # after all checks
        path = RunFolder(Path(trainer.log_dir or ".")).config  # a collective operation, so all processes ask
        if not trainer.is_global_zero or is_fast_dev_run(trainer):
            return
        with suppress(OSError, ValueError, AttributeError, yaml.YAMLError):  # damaged: it is replaced
            self.changed = changes(yaml.safe_load(path.read_text(encoding="utf-8")), self._settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, yaml.safe_dump(self._settings, sort_keys=False).encode(), in_own_folder=True)


def plain_settings(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
    """Returns all settings of ``fit``, given or default, in plain types, except for the checkpoint to resume from."""
    text = parser.dump(_spelled(config), skip_none=False, skip_validation=True)
    return {name: None if name in NOT_KEPT else value for name, value in yaml.safe_load(text).items()}


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """Returns the options whose values differ; 1, 1.0 and true are different values.

    >>> changes({"data": {"seed": 42, "batch_size": 16}}, {"data": {"seed": 7, "batch_size": 16}})
    {'data.seed': [42, 7]}
    """
    old, new = dict(leaves(before)), dict(leaves(now))
    pairs = {name: [old.get(name), new.get(name)] for name in sorted(old.keys() | new.keys())}
    return {name: pair for name, pair in pairs.items() if repr(pair[0]) != repr(pair[1])}


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each option of a nested configuration as a pair of its dotted name and its value."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _spelled(value: Any) -> Any:
    """Copies settings with devices and choices as text, which jsonargparse cannot dump where they are defaults."""
    if isinstance(value, Namespace):
        return Namespace(**{name: _spelled(item) for name, item in vars(value).items()})
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, torch.device) else value
