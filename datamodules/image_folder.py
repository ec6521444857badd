"""``ImageFolderDataModule``: from a folder of class folders to the loaders of every stage."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from datamodules.class_index import ClassIndex, natural_key
from datamodules.files.csv_cells import to_cell, to_utf8
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch, ImageDataset
from datamodules.images.cache import Place, open_cache
from datamodules.images.find import ImageFiles, find_images
from datamodules.images.read import MAX_PIXELS, ImageReadError
from datamodules.images.transforms import (
    Transform,
    eval_transform,
    normalize,
    reference_transform,
    side_to_load,
    train_transform,
)
from datamodules.prediction_rows import rows_from_files, rows_from_template
from datamodules.sampler import EvalSampler, TrainSampler
from datamodules.split_names import SPLITS, advice
from datamodules.splits import Files, fingerprint, held_out_remark, hold_out, list_split, require_apart, split_exists
from datamodules.workers.loader import build_loader, default_num_workers


class ImageFolderDataModule(LightningDataModule):
    """Loads ``ROOT/train/<class>/``, ``ROOT/val/<class>/`` and ``ROOT/test/``.

    Without ``val/``, a stratified part of ``train/`` is held out, the same one on every machine.

    Args:
        root: The folder that holds the splits.
        image_size: Side in pixels of the square that the network sees.
        batch_size: Images per step and process.
        num_workers: Loader processes for each training process; by default the CPUs shared out, at most 16.
        val_fraction: Share of each class that is held out where there is no ``val/``.
        predict_dir: Images to predict, a folder of any depth or one file; by default ``ROOT/test``.
        template: CSV file whose ``image_name`` column gives the rows of the prediction and their order; by default
            ``ROOT/sample_submission.csv`` where that exists and ``predict_dir`` is not given.
        worker_timeout: Seconds after which a loader process that delivers nothing ends the run; 0 for never.
        max_pixels: The largest image, width times height, that is decoded.
        on_bad_image: What a fit, validation or test does with an unreadable image: end with an error, or skip it. A
            prediction names each and needs --prediction.fallback_label to be whole.
        augmentation: fused, the reference's in fewer passes; or reference, as torchvision carries it out.
        cache: Where a fit keeps decoded images: none, ram, or disk for the user's cache folder.
        class_names: Classes to expect, in order; by default the folders of ``train/`` in natural order.
        seed: Of the order of samples, their augmentation and the held-out part.

    Attributes:
        classes: The classes and their order.
        on_unreadable: Called in the main process with what a batch's loading could not read; raises the first unless
            a callback (``BadImages``, ``PredictionWriter``) takes over.
        prediction_names: The image names of a prediction, as its files spell them.
        prediction_labels: The class names, likewise.
        held_out: What is held out of ``train/`` for lack of a ``val/``, in words; empty where there is one.

    Raises:
        UserError: A folder is missing, or its classes are not the expected ones.
    """

    # What becomes of an option after the fit. A resumed fit must not change one that is named in neither list.
    # Stored in every trained file, from which an evaluation takes them; a resumed fit must not change them either:
    IN_TRAINED_FILE = ("image_size", "val_fraction", "seed")
    # A resumed fit, or an ablation that goes on, may change these: they say where to find images and classes, which are
    # compared themselves, or how images are loaded rather than which:
    FREE_ON_RESUME = ("root", "num_workers", "predict_dir", "template", "worker_timeout", "cache", "class_names")

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 16,
        num_workers: int | None = None,
        val_fraction: float = 0.1,
        predict_dir: str | None = None,
        template: str | None = None,
        worker_timeout: int = 600,
        max_pixels: int = MAX_PIXELS,
        on_bad_image: Literal["error", "skip"] = "error",
        augmentation: Literal["fused", "reference"] = "fused",
        cache: Literal["none"] | Place = "none",
        class_names: list[str] | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        root = os.fspath(root)  # a Path would make the checkpoint unreadable with weights_only
        self.save_hyperparameters(logger=False)
        sizes = {"image_size": image_size, "batch_size": batch_size, "max_pixels": max_pixels}
        for name, value in {**sizes, "num_workers": num_workers or 0, "worker_timeout": worker_timeout}.items():
            if value < (floor := 1 if name in sizes else 0):
                raise UserError(f"expected --data.{name} to be at least {floor}, got {value}: give a larger number")
        if not 0 < val_fraction < 1:
            raise UserError(f"expected --data.val_fraction between 0 and 1, got {val_fraction}: 0.1 is the default")
        if cache != "none" and augmentation == "reference":
            raise UserError(
                "expected --data.cache none with --data.augmentation reference, which crops whole photos, got "
                f"{cache}: leave one of them out"
            )
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"expected --data.root to be a folder, there is none at {root}: check the path")
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.predict_dir = predict_dir
        self.template = template
        self.worker_timeout = worker_timeout
        self.max_pixels = max_pixels
        self.on_bad_image = on_bad_image
        self.augmentation = augmentation
        self.cache = cache
        self.seed = seed
        self.on_unreadable: Callable[[Sequence[ImageReadError]], None] = _raise_first
        self.classes = self._resolve_classes(class_names)
        self._datasets: dict[str, ImageDataset] = {}
        self.prediction_names: list[str] = []
        self.prediction_labels: list[str] = []
        self.held_out = ""

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
            UserError: A class has no image, a folder is missing, an image to measure is one of an earlier split's, or
                the template does not match the images.
        """
        if stage in ("fit", "validate"):
            if split_exists(self.root / "val"):
                val, val_found = self._list_split("val")
                if stage == "fit":
                    train, train_found = self._list_split("train")
                    require_apart(train_found, val_found, "train", "val")
                else:
                    self._require_unseen("val", val_found)
            else:
                train, val = hold_out(self._list_split("train")[0], self.val_fraction, self.seed, self.root)
                self.held_out = held_out_remark(self.root, val, self.val_fraction)
                self._print(self.held_out)
            if stage == "fit":
                train_way = reference_transform if self._as_torchvision("train") else train_transform
                self._add("train", train, train_way(self.image_size))
            self._add("val", val, eval_transform(self.image_size))
            if stage == "fit" and self.cache != "none":
                self._fill_caches(self.cache)
        elif stage == "test":
            folder = self.root / "test"
            self.classes.require_same(ClassIndex.from_folder(folder), "the checkpoint", str(folder))
            test, test_found = self._list_split("test")
            self._require_unseen("test", test_found)
            self._add("test", test, eval_transform(self.image_size))
        elif stage == "predict":
            rows = self._prediction_rows()
            self.prediction_names = [name for name, _ in rows]
            self._add("predict", [path for _, path in rows], eval_transform(self.image_size))

    def _list_split(self, split: str) -> tuple[Files, ImageFiles]:
        files, found = list_split(self.root / split, self.classes)
        self._print_passed_over(self.root / split, found.passed_over())
        return files, found

    def _require_unseen(self, split: str, found: ImageFiles) -> None:
        """Checks that no image to measure has trained or chosen weights; a prediction, which measures nothing, may."""
        for earlier in SPLITS[: SPLITS.index(split)]:
            if (self.root / earlier).is_dir():
                require_apart(find_images(self.root / earlier), found, earlier, split)

    def _print_passed_over(self, folder: Path, remarks: str) -> None:
        if remarks:
            self._print(f"{folder}: passed over {remarks}")

    def _print(self, line: str) -> None:
        if self.trainer and self.trainer.is_global_zero:
            print(line)

    def _add(self, split: str, files: Files | list[str], transform: Transform) -> None:
        targets = None
        if isinstance(files, dict):
            targets = [self.classes.position(name) for name, paths in files.items() for _ in paths]
            files = [path for paths in files.values() for path in paths]
        self._datasets[split] = ImageDataset(
            files,
            targets,
            transform,
            seed=self.seed,
            max_pixels=self.max_pixels,
            shorter_side=None if self._as_torchvision(split) else side_to_load(self.image_size),
            replace_unreadable=split == "train",
        )

    def _as_torchvision(self, split: str) -> bool:
        return split == "train" and self.augmentation == "reference"

    def _fill_caches(self, place: Place) -> None:
        """Opens the splits' caches, which the first process of each machine makes while the others wait."""
        for first in (True, False):
            if first == (not self.trainer or self.trainer.local_rank == 0):
                for split, dataset in self._datasets.items():
                    dataset.cache = open_cache(
                        place,
                        dataset.paths,
                        max_pixels=self.max_pixels,
                        shorter_side=side_to_load(self.image_size),
                        num_processes=default_num_workers(1) if self.num_workers is None else self.num_workers,
                        what=split,
                    )
            if self.trainer:
                self.trainer.strategy.barrier()

    def _prediction_rows(self) -> list[tuple[str, str]]:
        source = Path(self.predict_dir) if self.predict_dir else self.root / "test"
        if not source.exists():
            way_out = "" if self.predict_dir else f"{advice(source)}, or "
            raise UserError(f"expected a folder of images at {source}, there is none: {way_out}pass --data.predict_dir")
        if not self.predict_dir and any((source / name).is_dir() for name in self.classes.names):
            self.classes.require_same(ClassIndex.from_folder(source), "the checkpoint", str(source))
        if source.is_dir():
            found = find_images(source)
            paths = sorted([*found.paths, *found.again], key=natural_key)  # a row for each name, links' too
            self._print_passed_over(source, found.passed_over(but_again=True))
        else:
            paths = [str(source)]
        if not paths:
            rank_zero_warn(f"{source} holds no image: the prediction will have a header and no rows")
        template = Path(self.template) if self.template else self.root / "sample_submission.csv"
        if self.template or (not self.predict_dir and template.is_file()):
            self.prediction_labels = [to_utf8(name) for name in self.classes.names]  # a grader compares them
            return rows_from_template(template, paths)
        self.prediction_labels = [to_cell(name) for name in self.classes.names]
        return rows_from_files(paths)

    @functools.cached_property
    def fingerprint(self) -> dict[str, dict[str, int | str]]:
        """For each split that is set up, how many images it has, and a hash; taken once, as it looks at every file."""
        return {split: fingerprint(dataset.paths, self.root) for split, dataset in self._datasets.items()}

    def dataset(self, split: str) -> ImageDataset:
        """``train``, ``val``, ``test`` or ``predict``, which must be set up, over all processes."""
        return self._datasets[split]

    def resume_point(self) -> tuple[int, int]:
        """The epoch a fit is in or begins with, and how many of its batches are done; 0 at an epoch's end.

        Lightning tells the sampler of the epoch only after loading has begun, and of the batches never.
        """
        if not self.trainer:
            return 0, 0
        loop = self.trainer.fit_loop
        epoch: Any = loop.epoch_progress.current
        inside_epoch = epoch.ready > epoch.processed
        return epoch.processed, loop.epoch_loop.batch_progress.current.ready if inside_epoch else 0

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled by ``TrainSampler``; an incomplete last batch is left out unless it is the only one."""
        dataset = self._datasets["train"]
        rank, world_size = self._rank_and_world_size()
        if len(dataset) < world_size:
            raise UserError(f"expected an image for each of {world_size} processes, found {len(dataset)}: add images")
        epoch, batches = self.resume_point()
        sampler = TrainSampler(
            len(dataset),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            epoch=epoch,
            skip=batches * self.batch_size,
        )
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

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Hands on what a worker could not read.

        Raises:
            ImageReadError: See ``on_unreadable``; or a blank would take part in training.
        """
        if batch.unreadable:
            for error in batch.unreadable:
                if error.machine:
                    raise error
            self.on_unreadable(batch.unreadable)
            if self.trainer and self.trainer.training and batch.num_blanks:
                _raise_first(batch.unreadable)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalises the images, where they are by now."""
        return batch._replace(images=normalize(batch.images))

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        dataset = self._datasets[split]
        rank, world_size = self._rank_and_world_size()
        sampler = EvalSampler(len(dataset), batch_size=self.batch_size, rank=rank, world_size=world_size)
        return self._loader(dataset, sampler, drop_last=False)

    def _loader(self, dataset: ImageDataset, sampler: TrainSampler | EvalSampler, drop_last: bool) -> DataLoader[Batch]:
        workers = self.num_workers
        if workers is None:
            workers = default_num_workers(self.trainer.num_devices if self.trainer else 1)
        return build_loader(
            dataset,
            sampler,
            batch_size=self.batch_size,
            drop_last=drop_last,
            num_workers=workers,
            worker_timeout=self.worker_timeout,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _raise_first(errors: Sequence[ImageReadError]) -> None:
    raise errors[0]
