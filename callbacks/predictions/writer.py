"""Writing of ``prediction.csv`` and its companions: every image once, in order, or nothing."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from callbacks.predictions.image_table import Table
from callbacks.predictions.prediction_csv import (
    Predictions,
    kinds,
    partial_path,
    top_k_path,
    write_partial,
    write_predictions,
)
from callbacks.processes import fail, gather
from callbacks.run.manifest import versions, write_json
from callbacks.trainer_parts import data_of
from datamodules.bad_image_hook import UnreadableImageHandler
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError, listed, listed_reasons
from datamodules.files.own_files import PREDICTION_MANIFEST, require_replaceable
from datamodules.image_folder import ImageFolderDataModule
from datamodules.images.location import shown
from datamodules.images.read import ImageReadError
from datamodules.lookalike_names import as_seen, spelled_apart
from datamodules.split_names import require_outside_splits
from lightning_modules.classifier import ImageClassifier


class PredictionWriter(Callback, UnreadableImageHandler):
    """Collects the predictions of all processes and writes one row per image.

    Args:
        path: Path of the CSV file, beside which the others are written with its stem.
        top_k: Most probable classes of each image to write to STEM_topk.csv; 0 writes no such file.
        probabilities: Whether to write all class probabilities to STEM_probabilities.npz, with arrays image_name
            (images,), class_name (classes,) and probability (images, classes), float32.
        min_probability: Probability below which the most probable class of an image is to be reviewed: a column review
            of STEM_topk.csv, which then has at least one class, is 1 there and for unreadable images, else 0.
        fallback_label: Class to write for images that cannot be read, which STEM_manifest.json lists. Without one, such
            images are an error after all others have been predicted.

    Raises:
        UserError: ``path`` does not end in ``.csv``, ``top_k`` is negative, or ``min_probability`` is outside 0 to 1.
    """

    def __init__(
        self,
        path: str = "prediction.csv",
        top_k: int = 0,
        probabilities: bool = False,
        min_probability: float | None = None,
        fallback_label: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.top_k = top_k if min_probability is None else max(top_k, 1)
        self.probabilities = probabilities
        self.min_probability = min_probability
        self.fallback_label = fallback_label
        if self.path.suffix != ".csv":
            raise UserError(f"--prediction.path must end in .csv, got {path}")
        if top_k < 0:
            raise UserError(f"--prediction.top_k must be at least 0, got {top_k}: 0 writes no such file")
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise UserError(
                f"--prediction.min_probability must be between 0 and 1, got {min_probability}: leave it out to mark no "
                "image for review"
            )
        self._manifest_path = Path(f"{self.path.with_suffix('')}_manifest.json")
        self._table = Table(0)
        self._reasons: dict[str, str] = {}  # why a path cannot be read
        self._begun = 0.0

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        classes = _model(pl_module).classes
        if self.top_k > len(classes):
            raise UserError(
                f"--prediction.top_k must be at most {len(classes)}, the number of classes, got {self.top_k}"
            )
        if (label := self.fallback_label) is not None and label not in classes.names:
            alike = {name: label for name in classes.names if as_seen(name) == as_seen(label)}
            raise UserError(
                f"--prediction.fallback_label must be one of the {len(classes)} classes, but "
                + (f"spells {spelled_apart(alike)}" if alike else f"is {label}")
                + f": choose one of {listed(list(alike or classes.names))}"
            )
        if trainer.is_global_zero:
            self._require_free(_data(trainer))

    def _require_free(self, data: ImageFolderDataModule) -> None:
        option = "--prediction.path"
        require_writable(self.path.parent, option)
        require_outside_splits(self.path.parent, option, data.root)
        templates = [data.root / "sample_submission.csv", *([Path(data.template)] if data.template else [])]
        for path, kind in kinds(self.path, self.top_k, self.probabilities).items():
            require_replaceable(path, kind, option, templates)
        require_replaceable(self._manifest_path, PREDICTION_MANIFEST, option)

    @override
    def on_unreadable_images(self, trainer: Trainer, errors: Sequence[ImageReadError]) -> bool:
        if trainer.predicting:
            self._reasons.update((error.path, error.reason) for error in errors)
        return bool(trainer.predicting)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._table = Table(len(_data(trainer).prediction_names))
        self._begun = time.monotonic()

    @override
    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        samples, labels, probabilities = outputs
        columns = {"label": labels[:, 0]}
        if self.top_k:
            top_label = labels[:, : self.top_k]
            columns |= {"top_label": top_label, "top_probability": probabilities.gather(1, top_label)}
        if self.probabilities:
            columns["probability"] = probabilities
        self._table.add(samples, **columns)

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        columns = self._table.collect(trainer)
        seconds = time.monotonic() - self._begun
        counts = columns.pop("count")
        data, model = _data(trainer), _model(pl_module)
        names, paths = data.prediction_names, data.dataset("predict").paths
        reasons = {path: reason for part in gather(trainer, self._reasons) for path, reason in part.items()}
        unreadable = [
            {"image_name": name, "path": shown(path), "reason": reasons[path]}
            for name, path in zip(names, paths, strict=True)
            if path in reasons
        ]
        readable = np.array([path not in reasons for path in paths], bool)
        missing = [name for name, count, ok in zip(names, counts, readable, strict=True) if ok and count == 0]
        repeated = [name for name, count in zip(names, counts, strict=True) if count > 1]
        faults = [f"none for {listed(missing)}"] if missing else []
        faults += [f"several for {listed(repeated)}"] if repeated else []
        if faults:
            fail(
                trainer,
                f"each of {len(names)} images must have one prediction, got {' and '.join(faults)}: predict again "
                "without --trainer.limit_predict_batches",
            )
        if self.fallback_label is not None:
            columns["label"][~readable] = model.classes.position(self.fallback_label)
        if self.min_probability is not None:
            columns["review"] = ~readable | (columns["top_probability"][:, 0] < self.min_probability)
        predictions = Predictions(names, data.prediction_labels, readable=readable, **columns)
        whole = not unreadable or self.fallback_label is not None
        if trainer.is_global_zero:
            (write_predictions if whole else write_partial)(self.path, predictions)
            self._write_manifest(trainer, model, whole, unreadable)
        trainer.strategy.barrier()  # nobody ends before the first has written
        if not whole:
            described = listed_reasons({row["path"]: row["reason"] for row in unreadable})
            fail(
                trainer,
                f"{len(unreadable):,} of {len(names):,} images cannot be read: {described}; the other rows are in "
                f"{partial_path(self.path)}: replace the images, or label them with --prediction.fallback_label",
            )
        if trainer.is_global_zero:
            speed = f"{len(names) / max(seconds, 1e-9):.1f} images/s"
            print(f"{len(names):,} predictions in {self.path} and {self.path.with_suffix('.zip')}, {speed}")
            if predictions.review is not None:
                print(f"{predictions.review.sum():,} of them to review: see {top_k_path(self.path)}")
            if unreadable:
                print(f"{len(unreadable):,} of them unread, labelled {self.fallback_label}: see {self._manifest_path}")

    def _write_manifest(
        self, trainer: Trainer, model: ImageClassifier, whole: bool, unreadable: list[dict[str, str]]
    ) -> None:
        content = {
            "versions": versions(),
            "data": _data(trainer).fingerprint,
            "class_digest": model.classes.digest,
            "runtime": model.predictor.description if model.predictor else None,
            "processes": trainer.world_size,
            "complete": whole,
            "fallback_label": self.fallback_label,
            "unreadable": unreadable,
        }
        write_json(self._manifest_path, content)


def _data(trainer: Trainer) -> ImageFolderDataModule:
    data = data_of(trainer)
    if not isinstance(data, ImageFolderDataModule):
        raise TypeError(f"predicting needs an ImageFolderDataModule, got {type(data).__name__}")
    return data


def _model(pl_module: LightningModule) -> ImageClassifier:
    if not isinstance(pl_module, ImageClassifier):
        raise TypeError(f"predicting needs an ImageClassifier, got {type(pl_module).__name__}")
    return pl_module
