"""The caches of decoded images that the processes of a fit share."""

from collections.abc import Mapping

from pytorch_lightning import Trainer

from datamodules.image_dataset import ImageDataset
from datamodules.images.cache import Place, open_cache


def open_caches(
    datasets: Mapping[str, ImageDataset], place: Place, num_processes: int, trainer: Trainer | None
) -> None:
    """Opens the cache of each split, which the first process of each machine makes while the others wait.

    Args:
        datasets: Data sets by name of the split.
        place: As for ``open_cache``.
        num_processes: As for ``open_cache``.
        trainer: Trainer of the fit, or None for a process on its own.

    Raises:
        UserError: As for ``open_cache``.
    """
    for first in (True, False):
        if first == (not trainer or trainer.local_rank == 0):
            for split, dataset in datasets.items():
                assert dataset.shorter_side is not None  # options that need whole photos are refused with a cache
                dataset.cache = open_cache(
                    place,
                    dataset.paths,
                    max_pixels=dataset.max_pixels,
                    shorter_side=dataset.shorter_side,
                    num_processes=num_processes,
                    what=split,
                )
        if trainer:
            trainer.strategy.barrier()
