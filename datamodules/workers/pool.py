"""A pool of processes for work that is done once for each file, as an audit or a cache does, and not in batches."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from datamodules.files.errors import UserError
from datamodules.workers.process import obey_main_process, signals_held_back

CHUNK = 16  # items that a process takes at once

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(function: Callable[[Item], Result], items: Sequence[Item], num_processes: int) -> Iterator[Result]:
    """Yields ``function(item)`` in the order of the items.

    Not a ``DataLoader``, which raises another exception type than ``function`` does and waits for stuck processes.

    Args:
        function: Picklable function of one item.
        items: Its arguments.
        num_processes: Number of processes; 0 computes in this one.

    Raises:
        UserError: A process was killed.

    Example:
        >>> list(map_in_processes(abs, [-1, 2], num_processes=0))
        [1, 2]
    """
    if not num_processes:
        yield from map(function, items)
        return
    if os.name == "nt":
        num_processes = min(num_processes, 61)  # the most that Windows lets a process wait for
    before = set(multiprocessing.active_children())
    try:
        with ProcessPoolExecutor(num_processes, initializer=obey_main_process) as pool:
            try:
                yield from _results(pool, function, items, num_processes)
            except BaseException:  # nobody wants the results any more, and a process may be stuck
                for process in set(multiprocessing.active_children()) - before:
                    process.kill()
                raise
    except BrokenProcessPool as error:
        raise UserError(
            "a decoding process was killed, perhaps for lack of memory: lower --data.num_workers or --data.max_pixels"
        ) from error


def _results(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], num_processes: int
) -> Iterator[Result]:
    running: deque[Future[list[Result]]] = deque()  # not pool.map, which lets results pile up
    for start in range(0, len(items), CHUNK):
        with signals_held_back():
            running.append(pool.submit(_map_chunk, function, items[start : start + CHUNK]))
        if len(running) > 4 * num_processes:
            yield from running.popleft().result()
    while running:
        yield from running.popleft().result()


def _map_chunk(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
