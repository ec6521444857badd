"""The order of samples: a function of seed and epoch, divided among processes without duplicates.

Neither sampler knows how many loader workers there are. Both yield ``(epoch, sample)``, from which the data set derives
the sample's own augmentation, so that a batch is the same whoever prepares it.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

BLANK = -1  # the sample that pads a batch


def derive_seed(*numbers: int) -> int:
    """Mixes numbers of 0 or more into a seed of 64 bits, unrelated to that of any other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


class TrainSampler(Sampler[tuple[int, int]]):
    """A new permutation every epoch, of which each process takes every ``world_size``-th element.

    All processes see the same number of samples: the permutation's last ``size % world_size`` elements, different ones
    every epoch, are left out of the epoch.

    Args:
        size: Number of samples, at least ``world_size``.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes.
        epoch: First epoch to yield, in a resumed run.
        skip: Number of samples of that epoch that this process has already had.
    """

    def __init__(
        self, size: int, *, seed: int, rank: int = 0, world_size: int = 1, epoch: int = 0, skip: int = 0
    ) -> None:
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch
        self._resumed_at = (epoch, skip)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        share = order[self.rank : len(self) * self.world_size : self.world_size]
        resumed_epoch, skip = self._resumed_at
        for sample in share[skip if self.epoch == resumed_epoch else 0 :]:
            yield self.epoch, sample


class EvalSampler(Sampler[tuple[int, int]]):
    """Every sample exactly once over all processes, in full batches.

    Shares differ by one sample at most, and a share's last batch is padded with ``BLANK``, for which the data set
    returns a black image that no metric and no prediction counts. So every process takes the same number of batches, at
    least one, and collective operations match even if a process has no sample; and every image is computed in a batch
    of one shape, whatever the number of processes, so that its logits are the same bits.

    Args:
        size: Number of samples.
        batch_size: Batch size of the loader.
        rank: Rank of this process.
        world_size: Number of processes.

    Example:
        >>> list(EvalSampler(3, batch_size=2, rank=1, world_size=2))
        [(0, 1), (0, -1)]
    """

    def __init__(self, size: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._share: Sequence[int] = range(rank, size, world_size)
        largest_share = math.ceil(size / world_size)
        self._length = max(1, math.ceil(largest_share / batch_size)) * batch_size

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        blanks = itertools.repeat(BLANK, self._length - len(self._share))
        return ((0, sample) for sample in itertools.chain(self._share, blanks))
