"""How loader and decoding processes handle signals, and how they end."""

import atexit
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker, util  # noqa: F401, util so that its work at the exit is done after ours

from datamodules.workers.parent_watch import end_with_parent

# What a terminal, SLURM, systemd or Kubernetes send to all processes of a run. The main process answers them, and may
# need more batches for what it wants to save. Windows has the first two and the last, its Ctrl-Break.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")
SIGNALS: tuple[signal.Signals, ...] = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
SECONDS_TO_LEAVE = 2.0


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Keeps ``SIGNALS`` from processes that are started inside until ``obey_main_process`` decides about them."""
    is_forked = multiprocessing.get_start_method() == "fork"
    if not is_forked:
        _say_that_it_takes_long()
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    if not is_forked:
        resource_tracker.ensure_running()  # started later, Python 3.11 would unblock them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache
def _say_that_it_takes_long() -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print("starting processes that read images, which takes some seconds on this system", flush=True)


def obey_main_process() -> None:
    """Makes this process, started by ``multiprocessing``, end when its main process says so or is gone, not before.

    The main process says so with SIGTERM, as torch and ``multiprocessing`` do to one that does not end when asked.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM or not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who has sent a signal
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_leave_when_told, name="sigterm", daemon=True).start()
    end_with_parent()


def _leave_when_told() -> None:
    """Waits for the main process's SIGTERM, in a thread because reading an image may take forever."""
    main = multiprocessing.parent_process()
    while main and signal.sigwaitinfo([signal.SIGTERM]).si_pid != main.pid:
        pass
    os._exit(0)


def let_children_be_killed() -> None:
    """Removes torch's handler, which raises where a loader process is killed."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@atexit.register
def _kill_the_stuck() -> None:
    """Kills processes that do not end, for which ``multiprocessing`` would wait forever."""
    let_children_be_killed()
    children = [child for child in multiprocessing.active_children() if child.daemon]
    for child in children:
        child.terminate()
    for child in children:
        child.join(SECONDS_TO_LEAVE)
        child.kill()
