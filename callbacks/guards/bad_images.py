"""Handling of unreadable images in a fit, validation or test: end with their names, or skip and count them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from typing_extensions import override

from callbacks.processes import agree, agreement_is_due, fail, gather
from callbacks.trainer_parts import data_of
from datamodules.bad_image_hook import UnreadableImageHandler
from datamodules.files.errors import listed, listed_reasons
from datamodules.image_folder import ImageFolderDataModule
from datamodules.images.location import shown
from datamodules.images.read import MAX_PIXELS, ImageReadError, read_image
from datamodules.sampler import BLANK

MAX_SHARE = 0.05

Unreadable = dict[str, str]  # reason by path


class BadImages(Callback, UnreadableImageHandler):
    """Carries out ``--data.on_bad_image``.

    With ``error`` an unreadable image ends the run, with ``skip`` it is counted; more than 5 % of a split is always an
    error. A single process decides after every batch. Several decide together, on GPUs only every few batches, and at
    the end of an epoch, so that all end with the same sentence rather than with a broken connection.

    Attributes:
        unreadable: For each split, the reason for each unreadable path found so far on any process.
    """

    def __init__(self) -> None:
        self.unreadable: dict[str, Unreadable] = {}
        self._news = False  # whether there are new ones since processes last agreed
        self._max_pixels = MAX_PIXELS
        self._targets: dict[str, dict[str, int]] = {}  # class index by path, for each split
        self._class_sizes: dict[str, np.ndarray] = {}  # images of each class, for each split

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if isinstance(data := data_of(trainer), ImageFolderDataModule):
            self._max_pixels = data.max_pixels

    @override
    def on_unreadable_images(self, trainer: Trainer, errors: Sequence[ImageReadError]) -> bool:
        if trainer.predicting:
            return False
        split = str(trainer.state.stage.dataloader_prefix)  # type: ignore[union-attr]
        met = self.unreadable.setdefault(split, {})
        if any(error.path not in met for error in errors):  # else they were met in an earlier epoch
            met.update((error.path, error.reason) for error in errors)
            targets = _labels(data_of(trainer), split)
            known = self._targets.setdefault(split, {})
            known.update((error.path, int(targets[error.sample])) for error in errors if error.sample != BLANK)
            self._news = True
            if trainer.world_size == 1:
                self._decide(trainer)
        return True

    def _decide(self, trainer: Trainer) -> None:
        data = data_of(trainer)
        for split, unreadable in self.unreadable.items():
            number, size = len(unreadable), len(data.dataset(split).paths)
            if number > MAX_SHARE * size:
                fail(
                    trainer,
                    f"more than {MAX_SHARE:.0%} of the images in {split} cannot be read, {number} of {size:,} so far: "
                    f"{_described(unreadable)}; replace or remove them (cbam100 audit lists all)",
                )
            if bare := self._classes_without_readable_image(data, split):
                fail(
                    trainer,
                    f"no image of {listed(bare)} in {split} can be read: {_described(unreadable)}; replace them",
                )
            if data.on_bad_image == "error":
                fail(
                    trainer,
                    f"cannot read images of {split}: {_described(unreadable)}; replace or remove them, or pass "
                    "--data.on_bad_image skip (cbam100 audit lists all)",
                )

    def _classes_without_readable_image(self, data: ImageFolderDataModule, split: str) -> list[str]:
        bad, targets = self.unreadable[split], _labels(data, split)
        known = self._targets.setdefault(split, {})
        if unknown := bad.keys() - known.keys():  # those of other processes, and of the run that is resumed
            labelled = zip(data.dataset(split).paths, targets, strict=True)
            known |= {path: int(target) for path, target in labelled if path in unknown}
        if split not in self._class_sizes:
            self._class_sizes[split] = np.bincount(targets, minlength=len(data.classes))
        counts = np.bincount([known[path] for path in bad if path in known], minlength=len(data.classes))
        return [data.classes.names[position] for position in np.flatnonzero(counts == self._class_sizes[split])]

    def _agree(self, trainer: Trainer, batch_idx: int | None = None) -> None:
        if trainer.world_size > 1 and (batch_idx is None or agreement_is_due(trainer, batch_idx)):
            news, self._news = agree(trainer, self._news), False
            if news:
                for others in gather(trainer, self.unreadable):
                    for split, unreadable in others.items():
                        self.unreadable.setdefault(split, {}).update(unreadable)
                self._decide(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._agree(trainer, batch_idx)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._agree(trainer, batch_idx)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    on_test_batch_end = on_validation_batch_end
    on_validation_epoch_end = on_test_epoch_end = on_train_epoch_end

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for split, unreadable in sorted(self.unreadable.items()):
            if trainer.is_global_zero:
                print(f"{split}: skipped {len(unreadable)} unreadable images: {_described(unreadable)}")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"unreadable": self.unreadable}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for split, unreadable in state_dict["unreadable"].items():
            kept = {path: reason for path, reason in unreadable.items() if not _is_readable(path, self._max_pixels)}
            if kept:
                self.unreadable[split] = kept


def _labels(data: ImageFolderDataModule, split: str) -> np.ndarray:
    targets = data.dataset(split).targets
    assert targets is not None  # only a prediction has none
    return targets


def _is_readable(path: str, max_pixels: int) -> bool:
    try:
        read_image(path, max_pixels)
    except ImageReadError:
        return False
    return True


def _described(unreadable: Unreadable) -> str:
    return listed_reasons({shown(path): reason for path, reason in unreadable.items()})
