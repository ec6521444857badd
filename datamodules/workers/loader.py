"""The loader of a data set, and how its processes handle memory and signals."""

import gc
from typing import Any

import torch
from torch.utils.data import DataLoader

from datamodules.image_dataset import Batch, ImageDataset, collate
from datamodules.sampler import EvalSampler, TrainSampler
from datamodules.workers.cpus import cpus_for_each
from datamodules.workers.process import obey_main_process, signals_held_back

MAX_WORKERS = 16  # not yet measured on a GPU: cbam100 benchmark gpu compares 4, 8 and 16


class Loader(DataLoader[Batch]):
    """A loader whose processes live as long as the main process needs batches."""

    def __iter__(self) -> Any:
        with signals_held_back():
            return super().__iter__()


def build_loader(
    dataset: ImageDataset,
    sampler: TrainSampler | EvalSampler,
    *,
    batch_size: int,
    drop_last: bool,
    num_workers: int,
    worker_timeout: int,
    pin_memory: bool,
) -> DataLoader[Batch]:
    """Builds a loader of batches in the sampler's order, read by ``num_workers`` processes or, if 0, by this one.

    ``pin_memory`` page-locks batches, so that copies to a GPU overlap with computation.
    """
    return Loader(
        dataset,
        batch_size=batch_size,  # by name: Lightning rebuilds the predict loader from these arguments
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        drop_last=drop_last,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        timeout=worker_timeout if num_workers else 0,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # not the stream that dropout draws from
    )


def default_num_workers(processes: int) -> int:
    """Returns the CPUs for each of ``processes`` training processes on this machine, at most ``MAX_WORKERS``."""
    return min(MAX_WORKERS, cpus_for_each(processes))


def _prepare_worker(worker: int) -> None:
    gc.freeze()  # a collection would write to every object that a forked worker shares with the main process
    obey_main_process()
