"""Which files this project may replace: its own of the same kind, recognised by their content."""

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from datamodules.files.errors import UserError

MARK = "cbam100"  # in a picture's text, and a page's generator
PREDICTION, TOP_K, ABLATION = "table of predictions", "table of top-k predictions", "table of an ablation"
OUT_OF_FOLD = "table of out-of-fold probabilities"
PROBABILITIES, PICTURE, REPORT = "file of probabilities", "picture", "report"
SHARD, SHARD_MARK = "shard", f"{MARK} pack"  # a comment in its first header
CHECKPOINT, OTHER_CHECKPOINT, WEIGHTS = "checkpoint", "checkpoint of another module", "model"
EXPORT, MODEL_CARD = "exported model", "model card"
RUN_MANIFEST, PREDICTION_MANIFEST = "manifest of a run", "manifest of a prediction"
AUDIT, BENCHMARK, COMPARISON = "audit report", "benchmark report", "comparison"
LABELS_TO_CHECK = "table of labels to check"
JSON_KEYS = {
    RUN_MANIFEST: {"versions", "events"},
    PREDICTION_MANIFEST: {"versions", "complete", "unreadable"},
    AUDIT: {"splits", "stops", "duplicates"},
    BENCHMARK: {"benchmark", "machine", "rows"},
    COMPARISON: {"agreement", "moved", "differing"},
}
HEAD = 10_000  # bytes
TAIL = 10_000_000  # bytes; the header of an ONNX or OpenVINO file is at its end, and may list many classes


def kind_of(path: Path, suffix: str | None = None) -> str | None:
    """Tells which of this project's files ``path`` is, by its content; None for any other or a damaged file.

    Args:
        path: The file.
        suffix: Suffix of its final name; by default the one it has.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError, zipfile.BadZipFile):
        return READERS.get(suffix or path.suffix, _json)(path)  # reports may have any suffix
    return None


def is_replaceable(path: Path, kind: str | None) -> bool:
    """Tells whether a file of this kind may take the name ``path`` without a loss."""
    if not os.path.exists(path):
        return True
    return os.path.isfile(path) and (os.path.getsize(path) == 0 or (kind is not None and kind_of(path) == kind))


def require_replaceable(path: Path, kind: str, option: str, inputs: Iterable[Path] = ()) -> None:
    """Checks before work begins that ``atomic_file`` will replace what is there, and that no input is overwritten.

    Args:
        path: File that will be written.
        kind: Its kind; see ``kind_of``.
        option: Command-line option that chooses the path.
        inputs: Files that the command reads.

    Raises:
        UserError: ``path`` is an input, or exists and is not of this kind.
    """
    if any(os.path.exists(path) and os.path.exists(file) and path.samefile(file) for file in inputs):
        raise UserError(f"{path} is an input, so it is not overwritten: choose another {option}")
    if not is_replaceable(path, kind):
        raise UserError(
            f"{path} exists and is not an earlier {kind} by {MARK}, so it is not overwritten: move it away, or choose "
            f"another {option}"
        )


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _table(path: Path) -> str | None:
    header = _head(path).split(b"\n")[0]  # as callbacks/predictions/prediction_csv and scripts/ablation/table write it
    if header == b"rank,image_name,label,suggested,p_label,p_suggested,doubted":  # scripts/report/labels_to_check
        return LABELS_TO_CHECK
    if header == b"image_name,pred_label":
        return PREDICTION
    if header.startswith(b"image_name,label_1"):
        return TOP_K
    if header.replace(b'"', b"").startswith(b"image_name,label,fold,p("):  # callbacks/predictions/out_of_fold
        return OUT_OF_FOLD
    return ABLATION if header.endswith(b",size bytes") else None


def _zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return zip_of(names[0]) if len(names) == 1 and names[0].endswith(".csv") else None


def zip_of(name: str) -> str:
    """Returns the kind of the zip that holds the table ``name``."""
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
        length = int.from_bytes(file.read(8), "little")  # any number, if the file is another program's
        header = json.loads(file.read(min(length, os.path.getsize(path))))
    about = header["__metadata__"]
    return (EXPORT if "export" in about else WEIGHTS) if "class_digest" in about else None


def _containing(kinds: dict[str, str]) -> Callable[[Path], str | None]:
    """Makes a reader that returns the kind whose text is near the start of the file."""
    return lambda path: next((kind for text, kind in kinds.items() if text.encode() in _head(path)), None)


def _tail(path: Path, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(length, os.path.getsize(path)), os.SEEK_END)
        return file.read()


def _exported(path: Path) -> str | None:
    return EXPORT if b"class_digest" in _tail(path, TAIL) else None


def _exported_weights(path: Path) -> str | None:
    """As lightning_modules/exports/openvino_file ends it: with the mark and a hash of 32 bytes."""
    return EXPORT if _tail(path, len(MARK) + 32).startswith(MARK.encode()) else None


READERS: dict[str, Callable[[Path], str | None]] = {
    ".csv": _table,
    ".partial": _table,
    ".zip": _zip,
    ".npz": _arrays,
    ".tar": _containing({f" comment={SHARD_MARK}\n": SHARD}),
    ".json": _json,
    ".ckpt": _checkpoint,
    ".safetensors": _weights,
    ".onnx": _exported,
    ".xml": _exported,
    ".bin": _exported_weights,
    ".png": _containing({f"Software\0{MARK}": PICTURE}),
    ".html": _containing({f'<meta name="generator" content="{MARK}">': REPORT}),
    ".md": _containing(
        {f"`{MARK} ablate ": ABLATION, f"`{MARK} benchmark ": BENCHMARK, f"`{MARK} export ": MODEL_CARD}
    ),
}
