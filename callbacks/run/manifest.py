"""``manifest.json``: what a run was made from, its result, and what happened to it."""

import json
import platform
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import PIL
import pytorch_lightning
import torch
import torchmetrics
import torchvision
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from typing_extensions import override

from callbacks.guards.bad_images import BadImages
from callbacks.run.checkpoints import BestWeights
from callbacks.run.config import RunConfig
from callbacks.run.exact_resume import resumed_from
from callbacks.run.run_folder import RunFolder
from callbacks.trainer_parts import callbacks_of, data_of, is_fast_dev_run
from datamodules.files.atomic_file import write_bytes
from datamodules.files.version import version
from datamodules.images.location import shown
from lightning_modules.classifier import ImageClassifier
from lightning_modules.network.model_size import model_size_bytes, parameter_count


class RunManifest(Checkpoint):
    """Writes versions, seed, data fingerprint, class hash, size, skipped images, best epoch and events of a run.

    An event is a plain dictionary of ``event`` (started, resumed, interrupted, failed, finished), ``time``, ``epoch``
    and ``step``, and details. A run that resumes in its folder appends to the list. A ``Checkpoint``, because Lightning
    calls those last, here after ``BestWeights``.
    """

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._path = RunFolder(Path()).manifest

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._path = RunFolder(Path(trainer.log_dir or ".")).manifest  # a collective operation, so all processes ask
        checkpoint = resumed_from(trainer)
        self._events = self._earlier_events() if checkpoint else []
        if checkpoint:
            changes = (callback.changed for callback in callbacks_of(trainer, RunConfig))
            self._note(trainer, pl_module, "resumed", checkpoint=checkpoint, changed=next(changes, {}))
            if trainer.is_global_zero:
                print(f"resumed from {checkpoint} in epoch {trainer.current_epoch + 1}, step {trainer.global_step}")
        else:
            self._note(trainer, pl_module, "started")

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._note(trainer, pl_module, "finished")

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._events or not resumed_from(trainer) or not trainer.loggers:
            return
        # The run was killed after its last checkpoint, and nothing was left to do
        self._path = RunFolder(Path(trainer.loggers[0].log_dir or ".")).manifest
        self._events = self._earlier_events()
        if self._events and self._events[-1]["event"] != "finished":
            self._note(trainer, pl_module, "finished")

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self._events:
            return
        if number := _signal_behind(exception):
            self._note(trainer, pl_module, "interrupted", by=signal.Signals(number).name)
        else:
            self._note(trainer, pl_module, "failed", error=str(exception))

    def _earlier_events(self) -> list[dict[str, Any]]:
        with suppress(OSError, ValueError, LookupError, TypeError):  # missing, or damaged
            return json.loads(self._path.read_text(encoding="utf-8"))["events"]
        return []

    def _note(self, trainer: Trainer, pl_module: LightningModule, event: str, **details: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        where = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        self._events.append({"event": event, "time": now, **where, **details})
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, model: LightningModule) -> None:
        if not trainer.is_global_zero or is_fast_dev_run(trainer) or not isinstance(model, ImageClassifier):
            return
        data = data_of(trainer)
        content: dict[str, Any] = {
            "versions": versions(),
            "seed": data.seed,
            "batch_size": data.batch_size,  # Lightning's tuners may have changed it
            "learning_rate": model.hparams["learning_rate"],
            "data": data.fingerprint,
            "processes": trainer.world_size,
            "classes": len(model.classes),
            "class_digest": model.classes.digest,
            "parameters": parameter_count(model.network),
            "size_bytes": model_size_bytes(model.network, model.export_dtype),
            "best": next((callback.best for callback in callbacks_of(trainer, BestWeights)), {}),
            "skipped": {
                split: {shown(path): reason for path, reason in unreadable.items()}
                for callback in callbacks_of(trainer, BadImages)
                for split, unreadable in callback.unreadable.items()
            },
            "events": self._events,
        }
        write_json(self._path, content)


def _signal_behind(exception: BaseException) -> int:
    """Returns the number of the signal that ended the run, or 0."""
    if isinstance(exception, KeyboardInterrupt):
        return signal.SIGINT
    code = exception.code if isinstance(exception, SystemExit) else 0
    return code - 128 if isinstance(code, int) and code > 128 else 0


def versions() -> dict[str, str]:
    """Returns the versions of everything that the result depends on, by name."""
    return {
        "cbam100": version(),
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        **{module.__name__: module.__version__ for module in (torch, torchvision, pytorch_lightning, torchmetrics)},
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file atomically; names that are not UTF-8 are escaped."""
    write_bytes(path, json.dumps(content, indent=2).encode() + b"\n")
