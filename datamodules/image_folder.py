"""``ImageFolderDataModule``: from a folder of class folders to the loaders of every stage."""

import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from datamodules.class_index import ClassIndex
from datamodules.errors import UserError
from datamodules.image_dataset import Batch, ImageDataset, collate
from datamodules.image_files import ImageReadError, list_images
from datamodules.sampler import EvalSampler, TrainSampler
from datamodules.submission_template import rows_from_files, rows_from_template
from datamodules.transforms import eval_transform, train_transform

MAX_WORKERS = 8


class ImageFolderDataModule(LightningDataModule):
    """Loads ``ROOT/train/<class>/``, ``ROOT/val/<class>/`` and ``ROOT/test/``.

    Without ``val/``, a stratified part of ``train/`` is held out, the same one on every machine.

    Args:
        root: The folder that holds the splits.
        image_size: Side in pixels of the square that the network sees.
        batch_size: Images per step and process.
        num_workers: Loader processes for each training process; by default the CPUs shared out, at most 8.
        val_fraction: Share of each class that is held out where there is no ``val/``.
        predict_dir: Images to predict, a folder of any depth or one file; by default ``ROOT/test``.
        template: CSV file whose ``image_name`` column gives the rows of the prediction and their order; by default
            ``ROOT/sample_submission.csv`` where that exists and ``predict_dir`` is not given.
        class_names: Classes to expect, in order; by default the folders of ``train/`` in natural order.
        seed: Of the order of samples, their augmentation and the held-out part.

    Attributes:
        classes: The classes and their order.

    Raises:
        UserError: A folder is missing, or its classes are not the expected ones.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 16,
        num_workers: int | None = None,
        val_fraction: float = 0.1,
        predict_dir: str | None = None,
        template: str | None = None,
        class_names: list[str] | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        root = os.fspath(root)  # a Path would make the checkpoint unreadable with weights_only
        self.save_hyperparameters(logger=False)
        floors = (("image_size", image_size, 1), ("batch_size", batch_size, 1), ("num_workers", num_workers or 0, 0))
        for name, value, floor in floors:
            if value < floor:
                raise UserError(f"expected --data.{name} to be at least {floor}, got {value}: give a larger number")
        if not 0 < val_fraction < 1:
            raise UserError(f"expected --data.val_fraction between 0 and 1, got {val_fraction}: 0.1 is the default")
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"expected --data.root to be a folder, there is none at {root}: check the path")
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.predict_dir = predict_dir
        self.template = template
        self.seed = seed
        self.classes = self._resolve_classes(class_names)
        self._datasets: dict[str, ImageDataset] = {}
        self.prediction_names: list[str] = []

    def _resolve_classes(self, class_names: list[str] | None) -> ClassIndex:
        classes = ClassIndex(class_names) if class_names else ClassIndex.from_folder(self.root / "train")
        source = "the checkpoint" if class_names else str(self.root / "train")
        for split in ("train", "val"):
            folder = self.root / split
            if folder.is_dir() and str(folder) != source:
                classes.require_same(ClassIndex.from_folder(folder), source, str(folder))
        return classes

    def setup(self, stage: str) -> None:
        """Lists the files that ``stage`` (``fit``, ``validate``, ``test`` or ``predict``) needs. Opens no image.

        Raises:
            UserError: A class has no image, a folder is missing, or the template does not match the images.
        """
        if stage in ("fit", "validate"):
            if (self.root / "val").is_dir():
                train, val = self._list_split("train") if stage == "fit" else {}, self._list_split("val")
            else:
                train, val = self._hold_out()
            if stage == "fit":
                self._datasets["train"] = self._labelled(train, train_transform(self.image_size))
            self._datasets["val"] = self._labelled(val, eval_transform(self.image_size))
        elif stage == "test":
            folder = self.root / "test"
            self.classes.require_same(ClassIndex.from_folder(folder), "the checkpoint", str(folder))
            self._datasets["test"] = self._labelled(self._list_split("test"), eval_transform(self.image_size))
        elif stage == "predict":
            rows = self._prediction_rows()
            self.prediction_names = [name for name, _ in rows]
            self._datasets["predict"] = ImageDataset([path for _, path in rows], None, eval_transform(self.image_size))

    def _list_split(self, split: str) -> dict[str, list[str]]:
        """Paths by class; a class without an image is an error."""
        if not (self.root / split).is_dir():
            raise UserError(f"expected a folder {self.root / split} with one subfolder for each class, there is none")
        found = {name: list_images(self.root / split / name) for name in self.classes.names}
        for name, paths in found.items():
            if not paths:
                raise UserError(
                    f"expected an image in each class folder, {self.root / split / name} has none: add images or "
                    "remove the class from every split"
                )
        return found

    def _hold_out(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Splits ``train/`` in two, class by class."""
        train, val = {}, {}
        for name, paths in self._list_split("train").items():
            held_out = max(1, round(len(paths) * self.val_fraction))
            if held_out >= len(paths):
                raise UserError(
                    f"expected more than {held_out} images in {self.root / 'train' / name}, to hold out "
                    f"{held_out} for validation, found {len(paths)}: add images, a val folder, or lower "
                    "--data.val_fraction"
                )
            # By a hash of the name, which no library's random stream or file system's order can change.
            chosen = set(sorted(paths, key=self._split_key)[:held_out])
            val[name] = [path for path in paths if path in chosen]
            train[name] = [path for path in paths if path not in chosen]
        return train, val

    def _split_key(self, path: str) -> bytes:
        place = Path(path).relative_to(self.root).as_posix()
        return hashlib.sha256(f"{self.seed}/{place}".encode("utf-8", "surrogateescape")).digest()

    def _labelled(self, files: dict[str, list[str]], transform: Any) -> ImageDataset:
        paths = [path for paths in files.values() for path in paths]
        targets = [self.classes.position(name) for name, paths in files.items() for _ in paths]
        return ImageDataset(paths, targets, transform, self.seed)

    def _prediction_rows(self) -> list[tuple[str, str]]:
        source = Path(self.predict_dir) if self.predict_dir else self.root / "test"
        if not source.exists():
            raise UserError(f"expected a folder of images at {source}, there is none: pass --data.predict_dir")
        paths = list_images(source) if source.is_dir() else [str(source)]
        if not paths:
            rank_zero_warn(f"{source} holds no image: the prediction will have a header and no rows")
        template = Path(self.template) if self.template else self.root / "sample_submission.csv"
        if self.template or (not self.predict_dir and template.is_file()):
            return rows_from_template(template, paths)
        return rows_from_files(paths)

    @functools.cached_property
    def fingerprint(self) -> dict[str, dict[str, int | str]]:
        """For each split that is set up, the number of images and a SHA-256 of their names and sizes in bytes.

        Taken once: the manifest asks for it at every best epoch, and it looks at every file.
        """
        result: dict[str, dict[str, int | str]] = {}
        for split, dataset in self._datasets.items():
            digest = hashlib.sha256()
            for path in dataset.paths:
                line = f"{os.path.relpath(path, self.root)}\t{os.path.getsize(path)}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
            result[split] = {"images": len(dataset), "sha256": digest.hexdigest()}
        return result

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled by ``TrainSampler``; an incomplete last batch is left out unless it is the only one."""
        dataset = self._datasets["train"]
        rank, world_size = self._rank_and_world_size()
        if len(dataset) < world_size:
            raise UserError(f"expected an image for each of {world_size} processes, found {len(dataset)}: add images")
        sampler = TrainSampler(len(dataset), seed=self.seed, rank=rank, world_size=world_size)
        return self._loader(dataset, sampler, drop_last=len(sampler) >= self.batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation image once."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every image of ``test/<class>/`` once."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Every image to predict once; sample ``i`` is row ``i`` of the prediction."""
        return self._eval_loader("predict")

    def on_before_batch_transfer(self, batch: Batch | ImageReadError, dataloader_idx: int) -> Batch:
        """Raises, in the main process, what a worker could not read."""
        if isinstance(batch, ImageReadError):
            raise batch
        return batch

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        dataset = self._datasets[split]
        rank, world_size = self._rank_and_world_size()
        sampler = EvalSampler(len(dataset), batch_size=self.batch_size, rank=rank, world_size=world_size)
        return self._loader(dataset, sampler, drop_last=False)

    def _loader(self, dataset: ImageDataset, sampler: TrainSampler | EvalSampler, drop_last: bool) -> DataLoader[Batch]:
        workers = self._worker_count() if self.num_workers is None else self.num_workers
        return DataLoader(
            dataset,
            batch_size=self.batch_size,  # by name: Lightning makes the predict loader anew from these arguments
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(self.seed),  # not the stream that dropout draws from
        )

    def _worker_count(self) -> int:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(MAX_WORKERS, max(1, available // (self.trainer.num_devices if self.trainer else 1)))

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
