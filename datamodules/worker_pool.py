"""Processes that look at many files side by side, for what is done once and not for batches."""

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from datamodules.errors import UserError
from datamodules.parent_watch import end_with_parent

CHUNK = 16  # items that a process takes at once

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
            running: deque[Future[list[Result]]] = deque()  # not pool.map, which lets results pile up
            for start in range(0, len(items), CHUNK):
                running.append(pool.submit(_map_chunk, function, items[start : start + CHUNK]))
                if len(running) > 4 * num_processes:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "expected decoding processes to live, one was killed, perhaps for lack of memory: lower --data.num_workers "
            "or --data.max_pixels"
        ) from error


def _map_chunk(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the pool
    end_with_parent()
