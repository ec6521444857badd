"""The files of an export on their way to their names: written aside, and put into place once they are accepted."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from datamodules.files.atomic_file import SUFFIX, atomic_file, remove_leftovers
from datamodules.files.errors import UserError
from datamodules.files.locks import mark_as_used, remove_unless_used
from datamodules.files.own_files import EXPORT, MODEL_CARD, WEIGHTS, require_replaceable
from lightning_modules.weights.weights_file import SAFETENSORS_SUFFIX

CARD = "MODEL_CARD.md"
PREFIX, LOCK, CANDIDATE = ".export-", "lock", "candidate"


def require_free(files: list[Path], inputs: list[Path]) -> None:
    """Checks that an export may take the names ``files``, and that of the card beside them.

    Raises:
        UserError: One is an input, or is not an earlier export.
    """
    (folder,) = {path.parent for path in files}
    _remove_what_a_kill_left(folder)
    for path in files:
        require_replaceable(path, WEIGHTS if path.suffix == SAFETENSORS_SUFFIX else EXPORT, "--output", inputs)
    require_replaceable(folder / CARD, MODEL_CARD, "--output", inputs)


@contextmanager
def candidate_folder(output: Path) -> Iterator[Path]:
    """Yields a folder inside ``output``, which is removed at the end, or by a later export if this process is killed.

    Raises:
        UserError: It cannot be created.
    """
    try:
        folder = Path(tempfile.mkdtemp(dir=output, prefix=PREFIX, suffix=SUFFIX))
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error.strerror}): choose another --output") from error
    try:
        with open(folder / LOCK, "wb") as lock:
            mark_as_used(lock.fileno(), by_one=True)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_into_place(candidates: list[Path], files: list[Path], card: str) -> None:
    """Gives accepted files their names; when the last name appears, the content of all is complete.

    Args:
        candidates: The accepted files, in the order of ``files``.
        files: Their final paths; the one that users open comes last.
        card: Text of the model card.
    """
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
    remove_leftovers(output)
    for folder in output.glob(f"{PREFIX}*{SUFFIX}"):
        files = [path for path in folder.iterdir() if path.name != LOCK]
        remove_unless_used(folder / LOCK, *files)
        with suppress(OSError):
            folder.rmdir()
