"""Processes that look at many files side by side, for what is done once and not for batches."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from datamodules.errors import UserError
from datamodules.parent_watch import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(function: Callable[[Item], Result], items: Sequence[Item], num_processes: int) -> Iterator[Result]:
    """Yields ``function(item)`` in the order of the items.

    Args:
        function: Picklable.
        items: What it is given.
        num_processes: 0 computes in this process.

    Raises:
        UserError: A process died.
    """
    if not num_processes:
        yield from map(function, items)
        return
    try:
        with ProcessPoolExecutor(num_processes, initializer=_prepare) as pool:
            yield from pool.map(function, items, chunksize=16)
    except BrokenProcessPool as error:
        raise UserError(
            "expected decoding processes to live, one was killed, perhaps for lack of memory: lower --data.num_workers "
            "or --data.max_pixels"
        ) from error


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the pool
    end_with_parent()
