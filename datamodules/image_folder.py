"""``ImageFolderDataModule``: from a folder of class folders to the loaders of every stage."""

import functools
import os
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.bad_image_hook import hand_over
from datamodules.class_index import ClassIndex
from datamodules.data_options import require_usable_options
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch, ImageDataset
from datamodules.images.cache import Place
from datamodules.images.read import MAX_PIXELS
from datamodules.images.transforms import CROP_SCALE, eval_transform, normalize, side_to_load
from datamodules.prediction_rows import list_prediction
from datamodules.sampler import EvalSampler, TrainSampler
from datamodules.split_caches import open_caches
from datamodules.splits import fingerprint, list_splits
from datamodules.training_recipe import Augmentation, TrainingRecipe
from datamodules.workers.loader import build_loader, default_num_workers


class ImageFolderDataModule(LightningDataModule):
    """Loads ``ROOT/train/<class>/``, ``ROOT/val/<class>/`` and ``ROOT/test/``.

    Without ``val/``, a stratified part of ``train/`` is held out, the same one on every machine.

    Args:
        root: Folder that holds ``train/``, ``val/`` and ``test/``.
        image_size: Side of the square that the network sees, in pixels.
        batch_size: Images per step and process.
        num_workers: Loader processes of each training process; by default its share of the CPUs, at most 16.
        val_fraction: Share of each class that is held out for validation if there is no ``val/``.
        predict_dir: Images to predict, a folder of any depth or one file; by default ``ROOT/test``.
        template: CSV file whose ``image_name`` column gives the rows of the prediction and their order; by default
            ``ROOT/sample_submission.csv`` if that exists and ``predict_dir`` is not given.
        worker_timeout: Seconds after which a loader process that delivers nothing ends the run; 0 for never.
        max_pixels: Width times height of the largest image that is decoded.
        on_bad_image: What a fit, validation or test does with an unreadable image: end with an error, or skip it. A
            prediction lists each, and is complete only with --prediction.fallback_label.
        augmentation: How training images are augmented: fused, the reference recipe in fewer passes over the pixels;
            reference, the same recipe step by step in torchvision; or trivial, crop, flip and TrivialAugmentWide.
        crop_scale: Smallest and largest share of a training image's area that a crop keeps, with brackets as in
            [0.5,1.0].
        random_erasing: Probability that a random rectangle of a training image is painted over with the mean colour.
        mixup_alpha: Parameter of the Beta distribution of MixUp's shares; 0 for no MixUp.
        cutmix_alpha: Parameter of the Beta distribution of CutMix's shares; 0 for no CutMix. With both, each mixed
            batch has one of them, with equal probability.
        mix_probability: Probability that a batch is mixed, if MixUp or CutMix is on.
        plain_epochs: Number of epochs at the end without random erasing, MixUp and CutMix.
        progressive: Sizes of training images in pixels, each with the share of the epochs at which it ends, such as
            128@0.5,160@0.8,192@1; the last is ``image_size``. By default one size.
        cache: Where a fit keeps decoded images: none, ram (on Linux), or disk for the user's cache folder.
        class_names: Classes to expect, in order; by default the folders of ``train/`` in natural order.
        seed: Seed of the order of samples, their augmentation and the held-out part.

    Attributes:
        classes: The classes and their order.
        prediction_names: The image names of a prediction, as its files spell them.
        prediction_labels: The class names of a prediction, as its files spell them.
        recipe: What is done to training images in each epoch.
        held_out: A sentence on what is held out of ``train/``; empty if there is a ``val/``.
        normalizes: Whether batches are normalised on the device; False where an exported file does it.

    Raises:
        UserError: An option is out of its range, a folder is missing, or its classes are not the expected ones.
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
        augmentation: Augmentation = "fused",
        crop_scale: tuple[float, float] = CROP_SCALE,
        random_erasing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        mix_probability: float = 1.0,
        plain_epochs: int = 0,
        progressive: str | None = None,
        cache: Literal["none"] | Place = "none",
        class_names: list[str] | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        root = os.fspath(root)  # a Path would make the checkpoint unreadable with weights_only
        crop_scale = (crop_scale[0], crop_scale[1])  # lists of two, as notebooks may pass, are not equal to it
        self.save_hyperparameters(logger=False)
        require_usable_options(self.hparams)
        self.recipe = TrainingRecipe.of_options(self.hparams)
        self.root = Path(root)
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.predict_dir = predict_dir
        self.template = template
        self.worker_timeout = worker_timeout
        self.max_pixels = max_pixels
        self.on_bad_image = on_bad_image
        self.cache = cache
        self.seed = seed
        self.classes = ClassIndex.of_splits(self.root, class_names)
        self._datasets: dict[str, ImageDataset] = {}
        self.prediction_names: list[str] = []
        self.prediction_labels: list[str] = []
        self.held_out = ""
        self.normalizes = True

    @property
    def needs_length(self) -> list[str]:
        """The options, as they are typed, whose effect depends on the length of the run."""
        return self.recipe.needs_length

    @override
    def setup(self, stage: str) -> None:
        """Lists the files that a stage needs and checks them by their names, as ``UserError`` tells; opens no image."""
        if stage == "fit" and self.trainer:
            self.recipe = self.recipe.for_run(self.trainer)
        if stage == "predict":
            self.prediction_names, self.prediction_labels, paths = list_prediction(
                self.root, self.classes, self.predict_dir, self.template, say=self._print
            )
            self._add("predict", paths, None)
        else:
            splits, held_out = list_splits(
                self.root, stage, self.classes, val_fraction=self.val_fraction, seed=self.seed, say=self._print
            )
            self.held_out = held_out or self.held_out
            for split, files in splits.items():
                targets = [self.classes.position(name) for name, paths in files.items() for _ in paths]
                self._add(split, [path for paths in files.values() for path in paths], targets)
        if stage == "fit" and self.cache != "none":
            num_processes = default_num_workers(1) if self.num_workers is None else self.num_workers
            open_caches(self._datasets, self.cache, num_processes, self.trainer)

    def _add(self, split: str, paths: list[str], targets: list[int] | None) -> None:
        training = split == "train"
        self._datasets[split] = ImageDataset(
            paths,
            targets,
            self.recipe if training else eval_transform(self.image_size),
            seed=self.seed,
            max_pixels=self.max_pixels,
            shorter_side=self.recipe.side_to_load if training else side_to_load(self.image_size),
            replace_unreadable=training,
        )

    def _print(self, line: str) -> None:
        if self.trainer and self.trainer.is_global_zero:
            print(line)

    @functools.cached_property
    def fingerprint(self) -> dict[str, dict[str, int | str]]:
        """Number of images and a hash of each split that is set up; computed once, as it looks at every file."""
        return {split: fingerprint(dataset.paths, self.root) for split, dataset in self._datasets.items()}

    def dataset(self, split: str) -> ImageDataset:
        """Returns ``train``, ``val``, ``test`` or ``predict``, which must be set up, over all processes."""
        return self._datasets[split]

    def resume_point(self) -> tuple[int, int]:
        """Returns the epoch a fit is in or begins with, and how many of its batches are done; 0 at an epoch's end.

        Lightning tells the sampler of the epoch only after loading has begun, and of the batches never.
        """
        if not self.trainer:
            return 0, 0
        loop = self.trainer.fit_loop
        epoch: Any = loop.epoch_progress.current
        inside_epoch = epoch.ready > epoch.processed
        return epoch.processed, loop.epoch_loop.batch_progress.current.ready if inside_epoch else 0

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled by ``TrainSampler``; an incomplete last batch is left out unless it is the only one."""
        size = len(self._datasets["train"])
        rank, world_size = self._rank_and_world_size()
        if size < world_size:
            raise UserError(
                f"{world_size} processes need as many training images, found {size}: lower --trainer.devices"
            )
        epoch, batches = self.resume_point()
        skip = batches * self.batch_size
        sampler = TrainSampler(size, seed=self.seed, rank=rank, world_size=world_size, epoch=epoch, skip=skip)
        return self._loader("train", sampler, drop_last=len(sampler) >= self.batch_size)

    @override
    def val_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("val")

    @override
    def test_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("test")

    @override
    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._eval_loader("predict")  # whose sample i is row i of the prediction

    @override
    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if batch.unreadable:
            hand_over(batch.unreadable, self.trainer)
            if self.trainer and self.trainer.training and batch.num_blanks:
                raise batch.unreadable[0]  # no blank may take part in training
        return batch

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not self.normalizes:
            return batch
        images = normalize(batch.images)  # on the device, where they are by now
        # Mixed as floats, which need no rounding; normalisation is affine, so the order makes no other difference.
        return batch._replace(images=batch.mix.mix(images) if batch.mix else images)

    def _eval_loader(self, split: str) -> DataLoader[Batch]:
        rank, world_size = self._rank_and_world_size()
        size = len(self._datasets[split])
        sampler = EvalSampler(size, batch_size=self.batch_size, rank=rank, world_size=world_size)
        return self._loader(split, sampler, drop_last=False)

    def _loader(self, split: str, sampler: TrainSampler | EvalSampler, drop_last: bool) -> DataLoader[Batch]:
        workers = self.num_workers
        if workers is None:
            workers = default_num_workers(self.trainer.num_devices if self.trainer else 1)
        return build_loader(
            self._datasets[split],
            sampler,
            batch_size=self.batch_size,
            drop_last=drop_last,
            num_workers=workers,
            worker_timeout=self.worker_timeout,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
