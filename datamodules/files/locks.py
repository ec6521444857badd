"""Advisory locks: of a folder that one process works in, and of open files that others must not remove."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from datamodules.files.errors import UserError

try:
    import fcntl
except ImportError:  # on Windows, where an open file can be neither removed nor replaced, which serves as well
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
OPEN_FILES_CAN_BE_REMOVED = fcntl is not None
SECONDS = 1.0  # for which a lock may be held by a process that only asks whether another holds it


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder for this process. The lock ends with the process too, however it ends.

    Raises:
        UserError: Another process has locked it, or the lock file cannot be opened.
    """
    try:
        open(folder / LOCK, "ab").close()
    except OSError as error:
        raise UserError(f"cannot write {folder / LOCK} ({error.strerror}): check its permissions") from error
    lock = FileLock(folder / LOCK, timeout=SECONDS, thread_local=False, fallback_to_soft=False)
    with ExitStack() as held:
        try:
            held.enter_context(lock)
        except Timeout as error:
            raise UserError(f"another process is using {folder}: wait until it ends, or choose another name") from error
        except OSError:  # the file system may lack locks
            pass
        yield


def require_unlocked(folder: Path) -> None:
    """Raises ``UserError`` if a process has locked the folder; all processes of a run may ask at the same time."""
    with locked(folder):
        pass


def mark_as_used(descriptor: int, *, by_one: bool = False) -> None:
    """Keeps ``remove_unless_used`` from removing an open file, until it is closed.

    Args:
        descriptor: The open file.
        by_one: Whether to wait until no other process has marked it, rather than to share it.
    """
    if fcntl:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX if by_one else fcntl.LOCK_SH)


def require_unused(descriptor: int) -> None:
    """Raises ``OSError`` if another process has marked the open file, or the file system lacks locks."""
    if fcntl:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_unless_used(path: Path, *beside: Path) -> None:
    """Removes a file, and files beside it, unless a process has marked it or it cannot be removed."""
    with suppress(OSError), ExitStack() as opened:
        if OPEN_FILES_CAN_BE_REMOVED:
            require_unused(opened.enter_context(open(path, "rb")).fileno())
        for file in beside:
            file.unlink(missing_ok=True)
        path.unlink()
