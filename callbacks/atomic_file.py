"""Files that appear under their final name whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datamodules.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, which takes the name ``path`` when the block ends without an error.

    In the same folder, because a move across file systems is a copy, which a kill leaves half done.

    Raises:
        UserError: The folder is missing, cannot be written, or the disk is full.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise UserError(
            f"expected to write {path}, which failed ({error.strerror}): choose a folder that exists and is writable"
        ) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp keeps its files to their owner
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"expected to write {path}, which failed ({error}): see to the disk and the folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: Path, option: str) -> None:
    """Checks before work begins what ``atomic_file`` would find out after it.

    Args:
        folder: Where files will be written.
        option: The command-line option that chooses it.

    Raises:
        UserError: It is no folder, or cannot be written to.
    """
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise UserError(
            f"expected {folder.absolute()} to be a folder that can be written to, it is not: create it, change its "
            f"permissions or choose another {option}"
        )
