"""One split as a map-style data set: read, transform, and the batch that comes of it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datamodules.image_files import ImageReadError, read_image
from datamodules.sampler import BLANK, derive_seed

UNLABELLED = -1


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        images: Normalised float32 ``(batch, 3, height, width)``.
        targets: Class indices ``(batch,)``, ``UNLABELLED`` where there are none.
        samples: Positions in the data set ``(batch,)``, ``BLANK`` where a batch is filled up.
    """

    images: Tensor
    targets: Tensor
    samples: Tensor


class ImageDataset(Dataset[Any]):
    """Files with their class indices.

    Args:
        paths: The files.
        targets: Class index of each, or None for unlabelled files.
        transform: From an RGB image to a float tensor ``(3, height, width)``.
        seed: Of the run; with epoch and sample it determines what a random transform draws.
    """

    def __init__(
        self,
        paths: Sequence[str],
        targets: Sequence[int] | None,
        transform: Callable[[Image.Image], Tensor],
        seed: int = 0,
    ) -> None:
        self.paths = paths
        self.targets = targets
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int] | int) -> Batch | ImageReadError:
        """The sample as an unbatched ``Batch``, or the reason why its file cannot be read.

        An error is returned, not raised: raised in a loader worker it would reach the user as a worker's traceback.
        """
        epoch, sample = key if isinstance(key, tuple) else (0, key)  # --trainer.overfit_batches brings its own sampler
        if sample == BLANK:
            black = Image.new("RGB", (8, 8))
            return Batch(self.transform(black), torch.tensor(UNLABELLED), torch.tensor(BLANK))
        try:
            image = read_image(self.paths[sample])
        except ImageReadError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed the GPU's dropout too.
            torch.default_generator.manual_seed(derive_seed(self.seed, epoch, sample))
            pixels = self.transform(image)
        target = UNLABELLED if self.targets is None else self.targets[sample]
        return Batch(pixels, torch.tensor(target), torch.tensor(sample))


def collate(samples: list[Batch | ImageReadError]) -> Batch | ImageReadError:
    """Stacks samples to a batch; one unreadable file makes the whole batch its error."""
    for sample in samples:
        if isinstance(sample, ImageReadError):
            return sample
    return default_collate(samples)
