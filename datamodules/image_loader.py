"""The loader around a data set, and what its processes do about memory and signals."""

import gc
import os
import signal
import threading
from types import FrameType

import torch
from torch.utils.data import DataLoader

from datamodules.image_dataset import Batch, ImageDataset, collate
from datamodules.sampler import EvalSampler, TrainSampler

MAX_WORKERS = 8
SECONDS_TO_OUTLIVE_SIGTERM = 30


def build_loader(
    dataset: ImageDataset,
    sampler: TrainSampler | EvalSampler,
    *,
    batch_size: int,
    drop_last: bool,
    num_workers: int,
    worker_timeout: int,
) -> DataLoader[Batch]:
    """Batches of ``sampler``'s order, from ``num_workers`` processes or, with 0, from this one."""
    return DataLoader(
        dataset,
        batch_size=batch_size,  # by name: Lightning makes the predict loader anew from these arguments
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        drop_last=drop_last,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        timeout=worker_timeout if num_workers else 0,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # not the stream that dropout draws from
    )


def default_num_workers(processes: int) -> int:
    """The CPUs that this process may use, shared out over the training processes of the machine."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, max(1, available // processes))


def _prepare_worker(worker: int) -> None:
    gc.freeze()  # a collection would write to every object that a forked worker shares with the main process
    # A signal to the whole group must not take the next batch from a main process that still wants to save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(SECONDS_TO_OUTLIVE_SIGTERM, os._exit, [128 + number])
    timer.daemon = True
    timer.start()
