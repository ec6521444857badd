"""Ends a process whose parent is gone."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

SECONDS_BETWEEN_LOOKS = 2.0
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has one way to end a process, for every number


def end_with_parent(parent: int | None = None) -> None:
    """Starts a thread that kills this process once its parent has died.

    It is a thread, because a process that waits for others runs no code, and sends SIGKILL, because such a process
    handles no signal either.

    Args:
        parent: Process number of the parent, if it may have died before this call.
    """
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int | None) -> None:
    main = multiprocessing.parent_process()
    if main and parent is None:
        main.join()  # at once, also if it died before this call
    else:
        is_alive = _life_of(parent or os.getppid())
        while is_alive():
            time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), KILL)


def _life_of(parent: int) -> Callable[[], bool]:
    if os.name != "nt":
        return lambda: os.getppid() == parent
    import psutil  # Windows does not tell a process that its parent has died

    try:
        return psutil.Process(parent).is_running
    except psutil.NoSuchProcess:
        return lambda: False
