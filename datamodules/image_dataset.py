"""One split as a map-style data set, and the batch that a loader makes of its samples."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datamodules.images.cache import PixelCache
from datamodules.images.find import ImageFile
from datamodules.images.mixing import Mix
from datamodules.images.read import MAX_PIXELS, ImageReadError, read_image
from datamodules.images.transforms import Transform
from datamodules.path_array import PathArray
from datamodules.sampler import BLANK, derive_seed
from datamodules.training_recipe import TrainingRecipe

UNLABELLED = -1
MAX_ATTEMPTS = 200  # not enough only if hardly any file can be read


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        images: uint8 ``(batch, 3, height, width)``, channels last in memory; on the device normalised float32.
        targets: Class indices ``(batch,)``, ``UNLABELLED`` if a sample has none.
        samples: Positions in the data set ``(batch,)``, ``BLANK`` where the batch is padded.
        unreadable: Errors of the files that could not be read.
        num_blanks: Number of ``BLANK`` samples, counted on the host so that reading it does not sync with a GPU.
            Metrics rely on it.
        mix: How the images are mixed on the device, None if they are not; in a sample, as in the batch it begins.
    """

    images: Tensor
    targets: Tensor
    samples: Tensor
    unreadable: Sequence[ImageReadError] = ()  # pin_memory turns the tuple into a list
    num_blanks: int = 0
    mix: Mix | None = None


class ImageDataset(Dataset[Any]):
    """Images with their class indices.

    An unreadable file never stops a worker, whose traceback would be all that the user sees: its error travels in
    ``Batch.unreadable``, for the main process to decide. Its place in the batch stays blank, or, in training, where
    batch norm would see a blank, goes to another file under that file's own label.

    Args:
        images: The images, each with its name and place.
        targets: Class index of each file, or None for unlabelled files.
        transform: Maps an image and a seed to pixels; see ``datamodules.images.transforms``. Or the recipe of training,
            which has a transform for each epoch and mixes batches.
        seed: Seed of the run, which with epoch and sample determines what a random transform draws.
        max_pixels: As for ``read_image``.
        shorter_side: As for ``read_image``.
        cache: Decoded images to take instead of the files.
        replace_unreadable: Whether another file, determined by seed, epoch and sample, replaces an unreadable one.

    Attributes:
        names: The images' names: ``<class>/<place in the class>``, or, of a prediction, their places in what is
            predicted.
        paths: Where they lie.
    """

    def __init__(
        self,
        images: Iterable[ImageFile],
        targets: Sequence[int] | None,
        transform: Transform | TrainingRecipe,
        *,
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
        shorter_side: int | None = None,
        cache: PixelCache | None = None,
        replace_unreadable: bool = False,
    ) -> None:
        images = list(images)
        self.names = PathArray(image.name for image in images)
        self.paths = PathArray(image.path for image in images)
        self.targets = None if targets is None else np.array(targets, np.int64)
        self.transform = transform
        self.seed = seed
        self.max_pixels = max_pixels
        self.shorter_side = shorter_side
        self.cache = cache
        self.replace_unreadable = replace_unreadable

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int] | int) -> Batch:
        """Returns the sample as an unbatched ``Batch``."""
        epoch, sample = key if isinstance(key, tuple) else (0, key)  # --trainer.overfit_batches brings its own sampler
        image, sample, unreadable = self._read(epoch, sample)
        seed = derive_seed(self.seed, epoch, sample) if sample != BLANK else 0
        if isinstance(self.transform, TrainingRecipe):
            transform, mix = self.transform.transform(epoch), self.transform.draw_mix(epoch, seed)
        else:
            transform, mix = self.transform, None
        target = UNLABELLED if self.targets is None or sample == BLANK else int(self.targets[sample])
        blank = int(sample == BLANK)
        return Batch(transform(image, seed), torch.tensor(target), torch.tensor(sample), tuple(unreadable), blank, mix)

    def _read(self, epoch: int, wanted: int) -> tuple[Image.Image, int, list[ImageReadError]]:
        """Returns the image, which sample it is, and the errors on the way to it."""
        unreadable: list[ImageReadError] = []
        sample = wanted
        while sample != BLANK:
            try:
                return self._image(sample), sample, unreadable
            except ImageReadError as error:
                unreadable.append(error.at(sample))
            more = self.replace_unreadable and len(unreadable) < MAX_ATTEMPTS
            sample = derive_seed(self.seed, epoch, wanted, len(unreadable)) % len(self) if more else BLANK
        return Image.new("RGB", (8, 8)), BLANK, unreadable

    def _image(self, sample: int) -> Image.Image:
        image = self.cache.read(sample) if self.cache is not None else None
        return image or read_image(self.paths[sample], self.max_pixels, self.shorter_side)


def collate(samples: Sequence[Batch]) -> Batch:
    """Stacks samples into a batch.

    It is mixed as its first sample says, which no other batch of the epoch holds, on any process: a function of seed,
    epoch, step and rank, whoever prepares it.
    """
    images, targets, positions, unreadable, blanks, mixes = map(list, zip(*samples, strict=True))
    return Batch(
        default_collate(images).permute(0, 3, 1, 2),
        default_collate(targets),
        default_collate(positions),
        tuple(itertools.chain(*unreadable)),
        sum(blanks),
        mixes[0] if len(mixes) > 1 else None,  # an image alone has nothing to be mixed with
    )
