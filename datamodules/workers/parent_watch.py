"""Ends a process whose parent is gone."""

import multiprocessing
import os
import signal
import threading
import time

SECONDS_BETWEEN_LOOKS = 2.0


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
        main.join()  # to the moment, and also where it died before this call
    else:
        parent = parent or os.getppid()
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGKILL)
