"""The images that an export is checked and calibrated on, and the checkpoint's own answers."""

import itertools
import time
from collections.abc import Iterator

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from datamodules import ImageFolderDataModule
from datamodules.bad_image_hook import hand_over
from datamodules.files.errors import UserError
from datamodules.image_dataset import Batch, ImageDataset
from datamodules.images.find import ImageFile
from datamodules.images.transforms import eval_transform, normalize, side_to_load
from datamodules.sampler import BLANK, derive_seed
from lightning_modules import ImageClassifier
from lightning_modules.metrics.temperature import answers_of_views
from lightning_modules.network.inference import views
from scripts.export.acceptance import Evaluation

CALIBRATION_IMAGES = 512
CALIBRATION_BATCH = 4  # whose extremes are averaged: a single image with extreme activations counts little


def validation_batches(data: ImageFolderDataModule, title: str) -> Iterator[Batch]:
    """Yields every validation image once, in the order of the data set, and shows the progress on a terminal.

    Raises:
        UserError: An image cannot be read.
    """
    console = Console()
    for batch in track(data.val_dataloader(), title, console=console, transient=True, disable=not console.is_terminal):
        if batch.unreadable:
            hand_over(batch.unreadable, None)
        real = batch.samples != BLANK
        yield Batch(batch.images[real], batch.targets[real], batch.samples[real])


def pixels(batch: Batch) -> np.ndarray:
    """Returns the images of a batch as an exported graph takes them: uint8 ``(batch, height, width, 3)``."""
    return np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).numpy())


@torch.inference_mode()
def evaluate(model: ImageClassifier, data: ImageFolderDataModule) -> Evaluation:
    """Runs the checkpoint's network over the validation images, in float32 on the CPU.

    As training's validation runs it, and not by what an export is made from, so that a mistake there is seen.
    """
    columns: list[tuple[torch.Tensor, ...]] = []
    seconds = 0.0
    model.float().eval()
    for batch in validation_batches(data, "the checkpoint in float32"):
        start = time.perf_counter()
        images = normalize(batch.images)
        logits = [model(view) for view in views(images, model.hparams["tta"])]
        seconds += time.perf_counter() - start
        labels, probabilities = answers_of_views(logits, model.temperature)
        # Of one view, the difference of two log-probabilities is that of the logits.
        best = torch.stack(logits).log_softmax(2).logsumexp(0).topk(2).values
        columns.append((batch.targets, labels[:, 0], best[:, 0] - best[:, 1], probabilities))
    targets, predicted, lead, probability = (torch.cat(parts).numpy() for parts in zip(*columns, strict=True))
    return Evaluation(targets, predicted, lead, probability, len(targets) / seconds)


def calibration_images(data: ImageFolderDataModule) -> Iterator[np.ndarray]:
    """Yields training images without augmentation, in batches uint8 ``(batch, size, size, 3)``.

    At most ``CALIBRATION_IMAGES``, chosen by the seed of the fit; files that cannot be read are passed over.

    Raises:
        UserError: There is no training image that can be read.
    """
    data.setup("fit")
    train, size = data.dataset("train"), data.image_size
    images = map(ImageFile, train.names, train.paths)
    dataset = ImageDataset(
        images, None, eval_transform(size), max_pixels=data.max_pixels, shorter_side=side_to_load(size)
    )
    order = np.random.default_rng(derive_seed(data.seed, CALIBRATION_IMAGES)).permutation(len(dataset))
    samples = (dataset[int(sample)] for sample in order)
    readable = (sample.images.numpy() for sample in samples if not sample.unreadable)
    first = next(readable, None)
    if first is None:
        raise UserError(f"no training image of {data.root} can be read, and int8 is calibrated on them: replace them")
    chosen = itertools.islice(itertools.chain([first], readable), CALIBRATION_IMAGES)
    while batch := list(itertools.islice(chosen, CALIBRATION_BATCH)):
        yield np.stack(batch)
