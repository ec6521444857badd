"""Files that appear under their final name whole or not at all."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datamodules.files.errors import UserError
from datamodules.files.locks import OPEN_FILES_CAN_BE_REMOVED, mark_as_used, remove_unless_used
from datamodules.files.own_files import MARK, is_replaceable, kind_of

SUFFIX = ".part"
PAUSES = (0.1, 0.3, 0.6, 1.0)  # seconds between attempts to replace a file that others have open


@contextmanager
def atomic_file(path: Path, *, in_own_folder: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which takes the name ``path`` when the block ends without an error.

    The temporary file is in the same folder, because a move across file systems is a copy, which a kill leaves half
    done. Content and name have reached the disk when the block is left. A process that is killed leaves the temporary
    file behind, unlocked, for ``remove_leftovers``.

    An existing file is replaced only by one of its own kind (``kind_of``): any other may be wanted. A
    link is written through.

    Args:
        path: The final name.
        in_own_folder: Whether only this project writes to the folder, so that a damaged file may be replaced too.

    Raises:
        UserError: The folder is missing or not writable, the disk is full, or a file of another kind exists at
            ``path``, which is left as it was.
    """
    target = Path(os.path.realpath(path))
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{path.name}.", suffix=SUFFIX)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): choose a folder that exists and is writable"
        ) from error
    temporary = Path(name)
    try:
        with open(descriptor, "rb") as file:
            mark_as_used(descriptor, by_one=True)
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp keeps its files to their owner
            os.fsync(descriptor)
            if not in_own_folder and not is_replaceable(path, kind_of(temporary, path.suffix)):
                raise UserError(
                    f"{path} exists and is not an earlier file of the same kind by {MARK}, so it is not overwritten: "
                    "move it away"
                )
            if not OPEN_FILES_CAN_BE_REMOVED:  # nor renamed
                file.close()
            _replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}): check the disk and the folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes | memoryview, *, in_own_folder: bool = False) -> None:
    """Writes a complete file, or raises ``UserError`` and leaves what was there; see ``atomic_file``."""
    with atomic_file(path, in_own_folder=in_own_folder) as temporary:
        temporary.write_bytes(content)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that killed processes left in ``folder``; those being written are in use and stay."""
    for path in folder.glob(f".*{SUFFIX}"):
        remove_unless_used(path)


def require_writable(folder: Path, option: str) -> None:
    """Checks before work begins that ``atomic_file`` will be able to write.

    Args:
        folder: Folder that files will be written to.
        option: Command-line option that chooses it.

    Raises:
        UserError: There is no such folder, or it is not writable.
    """
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise UserError(
            f"{folder.absolute()} is not a folder that can be written to: create it, change its permissions or choose "
            f"another {option}"
        )


def _replace(temporary: Path, target: Path) -> None:
    """Renames; where an open file cannot be replaced, waits a little for who has it open, such as a virus scanner."""
    for pause in () if OPEN_FILES_CAN_BE_REMOVED else PAUSES:
        with suppress(PermissionError):
            os.replace(temporary, target)
            return
        time.sleep(pause)
    try:
        os.replace(temporary, target)
    except PermissionError as error:
        if OPEN_FILES_CAN_BE_REMOVED:
            raise
        raise UserError(
            f"cannot replace {target} ({error.strerror}): close it in other programs, or check its permissions"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Makes a new name in the folder outlast a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and not every folder that can be written to can be read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)
