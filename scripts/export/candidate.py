"""The files of an export on their way to their names: written aside, and put into place once they are accepted."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from datamodules.files import locks
from datamodules.files.atomic_file import SUFFIX, atomic_file
from datamodules.files.errors import UserError
from datamodules.files.own_files import EXPORT, MODEL_CARD, require_replaceable
from lightning_modules.exports.header import SUFFIXES
from scripts.export.card_edits import require_unedited
from scripts.export.formats import files_of

CARD = "MODEL_CARD.md"
PREFIX, LOCK, CANDIDATE = ".export-", "lock", "candidate"
RANDOM = 8 * "?"  # what tempfile puts between prefix and suffix


def require_free(files: list[Path], inputs: list[Path]) -> None:
    """Checks that an export may take the names ``files``, and that of the card beside them.

    Raises:
        UserError: One is an input, is not an earlier export, was edited since, or is a link into a missing folder.
    """
    (folder,) = {path.parent for path in files}
    for path, kind in {**dict.fromkeys(files, EXPORT), folder / CARD: MODEL_CARD}.items():
        target = Path(os.path.realpath(path))  # which is written, so that its folder must be there
        if path.is_symlink() and not target.parent.is_dir():
            raise UserError(
                f"{path} is a dangling link to {target}, in a folder that is missing: repair or remove it, or choose "
                "another --output"
            )
        require_replaceable(path, kind, "--output", inputs)
    require_unedited(folder / CARD)


@contextmanager
def candidate_folder(output: Path) -> Iterator[Path]:
    """Yields a folder inside ``output``, which is removed at the end, or by a later export if this process is killed.

    Meanwhile ``output`` is locked, as files of two exports at once would be mixed.

    Raises:
        UserError: Another process works in ``output``, or the folder cannot be created.
    """
    with locks.locked(output):
        _remove_what_a_kill_left(output)
        try:
            folder = Path(tempfile.mkdtemp(dir=output, prefix=PREFIX, suffix=SUFFIX))
        except OSError as error:
            raise UserError(f"cannot write to {output} ({error.strerror}): choose another --output") from error
        try:
            with open(folder / LOCK, "wb") as lock:
                locks.mark_as_used(lock.fileno(), by_one=True)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # Windows keeps open files. Who waits for a lock file that is removed makes another
                (output / locks.LOCK).unlink()


def put_into_place(candidates: list[Path], files: list[Path], card: str) -> None:
    """Gives accepted files their names; when the last name appears, the content of all is complete.

    Args:
        candidates: The accepted files, in the order of ``files``.
        files: Their final paths; the one that users open comes last.
        card: Text of the model card.

    Raises:
        UserError: A name was taken, or the card was edited, since ``require_free`` was asked.
    """
    require_free(files, [])
    *others, opened = files
    with ExitStack() as renamed:  # in the reverse order of what follows
        path = renamed.enter_context(atomic_file(opened.with_name(CARD)))
        path.write_text(card, encoding="utf-8")
        for candidate, path in reversed(list(zip(candidates, files, strict=True))):
            temporary = renamed.enter_context(atomic_file(path))
            shutil.copyfile(candidate, temporary)
        if others:  # or an old graph would stand beside new weights for a moment
            Path(os.path.realpath(opened)).unlink(missing_ok=True)


def _remove_what_a_kill_left(output: Path) -> None:
    """Removes temporary files and folders by the names that only this module gives; a user's own may end likewise."""
    for name in (*(path.name for format in SUFFIXES for path in files_of(output, format)), CARD):
        for path in output.glob(f".{name}.{RANDOM}{SUFFIX}"):  # of atomic_file
            locks.remove_unless_used(path)
    for lock in output.glob(f"{PREFIX}{RANDOM}{SUFFIX}/{LOCK}"):
        locks.remove_unless_used(lock, *(path for path in lock.parent.iterdir() if path != lock))
        with suppress(OSError):
            lock.parent.rmdir()
