"""``ImageFolderDataModule``: from images in any form to the data sets of every stage."""

import hashlib
import itertools
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from typing_extensions import override

from datamodules.base_data_module import BaseDataModule
from datamodules.data_options import DEFAULT_VAL_FRACTION, require_usable_options
from datamodules.files.errors import UserError
from datamodules.image_dataset import ImageDataset
from datamodules.images.cache import Place
from datamodules.images.find import ImageFile
from datamodules.images.read import MAX_PIXELS
from datamodules.images.transforms import CROP_SCALE, eval_transform, side_to_load
from datamodules.partition import Partition
from datamodules.prediction_rows import list_prediction
from datamodules.sources.data_set import LABEL_OPTIONS, DataSet
from datamodules.split_caches import open_caches
from datamodules.splits import classes_of, list_splits
from datamodules.training_recipe import Augmentation, TrainingRecipe
from datamodules.workers.loader import default_num_workers

HELD_OUT = "held_out"  # in a checkpoint


class ImageFolderDataModule(BaseDataModule):
    """Loads the splits ``train``, ``val`` and ``test``, each in the form in which it lies in ``root``.

    A form is a folder of class folders, ``ROOT/train/<class>/``; archives, ``ROOT/train.tar``, ``train-000000.tar`` and
    so on, or a zip; Hugging Face's ``metadata.csv`` or ``metadata.jsonl`` in the split's folder; or a labels file for
    all splits. ``root`` may also be a folder of class folders itself. Without ``val``, a stratified part of ``train``
    is held out, the same one on every machine.

    Args:
        root: Folder of the data set: of its splits, of its classes, or of the images of a labels file.
        image_size: Side of the square that the network sees, in pixels.
        batch_size: Images per step and process.
        num_workers: Loader processes of each training process; by default its share of the CPUs, at most 16.
        labels: CSV, TSV or JSONL file that names images, with or without folders and suffix, their classes and perhaps
            their splits.
        image_column: Column of ``labels`` with the images; by default file_name, image, image_path, image_name, path or
            id, whichever is the only one there.
        label_column: Column of ``labels``, or key of the JSON files in archives, with the classes; by default label,
            class or target.
        split_column: Column of ``labels`` with train, val or test; by default split. Without one, all images train.
        class_list: File with the name of a class in each line, for archives whose images have a class index.
        val_fraction: Share of each class that is held out for validation if there is no ``val``.
        folds: Number of parts that ``train`` is divided into, of which one validates and the others train; 0 for none.
        fold: The part that validates, from 0.
        group_column: Column of ``labels`` with the object that an image shows; images of one object stay together.
        group_pattern: Regular expression whose first group, or whole match, is the object in an image's name
            CLASS/NAME.
        fraction: Share of the training images of each class that train. A smaller share is part of a larger one.
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
        held_out: A sentence on what is held out of ``train``; empty if there is a ``val``.
        fit_held_out: ``held_out_digest`` of the fit whose weights are validated, if that is known.

    Raises:
        UserError: An option is out of its range, a folder is missing, or its classes are not the expected ones.
    """

    # What becomes of an option after the fit. A resumed fit must not change one that is named in neither list.
    # Stored in every trained file, from which an evaluation takes them; a resumed fit must not change them either:
    IN_TRAINED_FILE = ("image_size", "val_fraction", "folds", "fold", "group_column", "group_pattern", "seed")
    # A resumed fit, or an ablation that goes on, may change these: they say where to find images and classes, which are
    # compared themselves, or how images are loaded rather than which:
    FREE_ON_RESUME = (
        *("root", *LABEL_OPTIONS, "num_workers", "predict_dir", "template", "worker_timeout", "cache", "class_names"),
    )

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 16,
        num_workers: int | None = None,
        labels: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        class_list: str | None = None,
        val_fraction: float = DEFAULT_VAL_FRACTION,
        folds: int = 0,
        fold: int = 0,
        group_column: str | None = None,
        group_pattern: str | None = None,
        fraction: float = 1.0,
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
        labels, class_list, predict_dir, template = (
            os.fspath(path) if path else None for path in (labels, class_list, predict_dir, template)
        )
        folds, fold = operator.index(folds), operator.index(fold)  # as numpy's would
        crop_scale = (crop_scale[0], crop_scale[1])  # lists of two, as notebooks may pass, are not equal to it
        self.save_hyperparameters(logger=False)
        require_usable_options(self.hparams)
        self.recipe = TrainingRecipe.of_options(self.hparams)
        self.root = Path(root)
        self.image_size = image_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.partition = Partition(
            seed=seed,
            val_fraction=val_fraction,
            folds=folds,
            fold=fold,
            group_pattern=group_pattern,
            fraction=fraction,
            group_column=group_column,
        )
        self.predict_dir = predict_dir
        self.template = template
        self.worker_timeout = worker_timeout
        self.max_pixels = max_pixels
        self.on_bad_image = on_bad_image
        self.cache = cache
        self.seed = seed
        self.data_set = DataSet(self.root, self.hparams)
        self.classes = classes_of(self.data_set, class_names)
        self.prediction_names: list[str] = []
        self.prediction_labels: list[str] = []
        self.fit_held_out: str | None = None

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
            self.prediction_names, self.prediction_labels, images = list_prediction(
                self.data_set, self.classes, self.predict_dir, self.template, say=self._print
            )
            self._add("predict", images, None)
        else:
            splits, held_out = list_splits(self.data_set, stage, self.classes, self.partition, say=self._print)
            self.held_out = held_out or self.held_out
            for split, files in splits.items():
                targets = [self.classes.position(name) for name, images in files.items() for _ in images]
                self._add(split, itertools.chain.from_iterable(files.values()), targets)
            if stage == "validate":
                self._compare_held_out()
        if stage == "fit" and self.cache != "none":
            num_processes = default_num_workers(1) if self.num_workers is None else self.num_workers
            open_caches(self._datasets, self.cache, num_processes, self.trainer)

    @property
    def held_out_digest(self) -> str | None:
        """SHA-256 of the names of the images that are held out of ``train``; None if none are."""
        if not self.held_out:
            return None
        names = "\n".join(self._datasets["val"].names)
        return hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()

    @override
    def state_dict(self) -> dict[str, str]:
        digest = self.held_out_digest
        return {HELD_OUT: digest} if digest else {}

    def _compare_held_out(self) -> None:
        """Checks that the images that the fit held out are those that are now.

        Raises:
            UserError: They are not, and whole folds or groups may have changed sides.
        """
        digest = self.held_out_digest
        if digest is None or self.fit_held_out in (None, digest):
            return
        remark = (
            f"the images held out of {self.root} are not those that the fit held out, as images were added, removed or "
            "renamed or options differ, so that some have trained: restore them, or add a val"
        )
        if self.partition.moves_many:
            raise UserError(remark)
        self._print(f"{remark}; the accuracy may be too high")

    def _add(self, split: str, images: Iterable[ImageFile], targets: list[int] | None) -> None:
        training = split == "train"
        self._datasets[split] = ImageDataset(
            images,
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
