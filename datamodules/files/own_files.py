"""Which files this project may replace: its own of the same kind, which it tells by their content."""

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from datamodules.files.errors import UserError

MARK = "cbam100"  # in a picture's text, and a page's generator
PREDICTION, TOP_K, ABLATION = "table of predictions", "table of top-k predictions", "table of an ablation"
PROBABILITIES, PICTURE, REPORT = "file of probabilities", "picture", "report"
CHECKPOINT, OTHER_CHECKPOINT, WEIGHTS = "checkpoint", "checkpoint of another module", "model"
RUN_MANIFEST, PREDICTION_MANIFEST = "manifest of a run", "manifest of a prediction"
AUDIT, BENCHMARK = "audit's report", "benchmark's report"
JSON_KEYS = {
    RUN_MANIFEST: {"versions", "events"},
    PREDICTION_MANIFEST: {"versions", "complete", "unreadable"},
    AUDIT: {"splits", "stops", "duplicates"},
    BENCHMARK: {"benchmark", "machine", "rows"},
}
HEAD = 10_000  # bytes


def kind_of(path: Path, suffix: str | None = None) -> str | None:
    """Which of this project's files ``path`` is, by its content; None for anybody else's, or a damaged one.

    Args:
        path: The file.
        suffix: Of its final name; by default the one it has.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError, zipfile.BadZipFile):
        return READERS.get(suffix or path.suffix, _json)(path)  # reports may have any suffix
    return None


def is_replaceable(path: Path, kind: str | None) -> bool:
    """Whether nothing is lost where a file of this kind takes the name ``path``."""
    if not os.path.exists(path):
        return True
    return os.path.isfile(path) and (os.path.getsize(path) == 0 or (kind is not None and kind_of(path) == kind))


def require_replaceable(path: Path, kind: str, option: str, inputs: Iterable[Path] = ()) -> None:
    """Checks before work begins what ``atomic_file`` would find out after it, and that no input is written over.

    Args:
        path: Where a file will be written.
        kind: Which one.
        option: The command-line option that chooses it.
        inputs: What the command reads.

    Raises:
        UserError: It is an input, or something else than a file of this kind stands there.
    """
    if any(os.path.exists(path) and os.path.exists(file) and path.samefile(file) for file in inputs):
        raise UserError(f"expected to write beside what is read, {path} is an input: choose another {option}")
    if not is_replaceable(path, kind):
        raise UserError(
            f"expected nothing or an earlier {kind} of {MARK} at {path}, something else is there: move it away, or "
            f"choose another {option}"
        )


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _table(path: Path) -> str | None:
    header = _head(path).split(b"\n")[0]
    if header == b"image_name,pred_label":
        return PREDICTION
    if header.startswith(b"image_name,label_1"):
        return TOP_K
    return ABLATION if header.endswith(b",size bytes") else None


def _zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return zip_of(names[0]) if len(names) == 1 and names[0].endswith(".csv") else None


def zip_of(name: str) -> str:
    """The kind of the zip that holds the table ``name``."""
    return f"zip of {name}"


def _arrays(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = {"image_name.npy", "class_name.npy", "probability.npy"}
        return PROBABILITIES if set(archive.namelist()) == names else None


def _json(path: Path) -> str | None:
    head = _head(path)
    if head.startswith(f"{MARK} benchmark ".encode()):  # its log
        return BENCHMARK
    if not head.startswith(b"{"):  # which may be of any size
        return None
    keys = json.loads(path.read_bytes()).keys()
    return next((kind for kind, wanted in JSON_KEYS.items() if wanted <= keys), None)


def _checkpoint(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")][0]  # noqa: RUF015, IndexError
        return CHECKPOINT if b"class_digest" in archive.read(pickled) else OTHER_CHECKPOINT


def _weights(path: Path) -> str | None:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")  # of a stranger's file any number
        header = json.loads(file.read(min(length, os.path.getsize(path))))
    return WEIGHTS if "class_digest" in header["__metadata__"] else None


def _containing(kinds: dict[str, str]) -> Callable[[Path], str | None]:
    """A reader that returns the kind whose text is near the start of the file."""
    return lambda path: next((kind for text, kind in kinds.items() if text.encode() in _head(path)), None)


READERS: dict[str, Callable[[Path], str | None]] = {
    ".csv": _table,
    ".partial": _table,
    ".zip": _zip,
    ".npz": _arrays,
    ".json": _json,
    ".ckpt": _checkpoint,
    ".safetensors": _weights,
    ".png": _containing({f"Software\0{MARK}": PICTURE}),
    ".html": _containing({f'<meta name="generator" content="{MARK}">': REPORT}),
    ".md": _containing({f"`{MARK} ablate ": ABLATION, f"`{MARK} benchmark ": BENCHMARK}),
}
