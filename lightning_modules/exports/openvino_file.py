"""The network as OpenVINO's pair of files, ``.xml`` and ``.bin``, converted from ONNX."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.files.atomic_file import atomic_file
from datamodules.files.errors import UserError
from datamodules.files.own_files import EXPORT, MARK, is_replaceable
from lightning_modules.exports.header import FOREIGN_KEY
from lightning_modules.exports.packages import require

WEIGHTS_SUFFIX = ".bin"
PAIR = "pair"  # key of the hash of the weights


def openvino_model(content: bytes) -> Any:
    """Reads an ONNX file's content as an ``openvino.Model``; raises ``UserError`` if openvino is not installed.

    Not by ``openvino.convert_model``, which reports its use over the network.
    """
    return require("openvino", "openvino").Core().read_model(content)


def write_openvino(model: Any, header: Mapping[str, str], path: Path) -> int:
    """Writes ``path`` and the ``.bin`` beside it, and returns the bytes of both.

    The ``.bin`` gets its name first, so that an ``.xml`` never lacks its weights. It ends with ``cbam100`` and the hash
    of what precedes, which the ``.xml`` repeats, as the weights of another export would fit too.

    Args:
        model: What ``openvino_model`` returns.
        header: Goes to ``rt_info``, below ``cbam100``.
        path: The ``.xml`` file.

    Raises:
        UserError: A file cannot be written, or another program's is in its place.
    """
    openvino = require("openvino", "openvino")
    weights_path = path.with_suffix(WEIGHTS_SUFFIX)
    for place in (path, weights_path):
        if not is_replaceable(place, EXPORT):
            raise UserError(f"{place} exists and is not an earlier {EXPORT} by {MARK}: move it away")
    for name, text in header.items():
        if name != FOREIGN_KEY:
            model.set_rt_info(text, [MARK, name])
    with tempfile.TemporaryDirectory(prefix=f".{MARK}.", dir=path.parent) as folder:
        files = [Path(folder, "model.xml"), Path(folder, "model.bin")]
        try:
            openvino.save_model(model, files[0], compress_to_fp16=False)
            weights = files[1].read_bytes()
            digest = hashlib.sha256(weights).hexdigest()
            model.set_rt_info(json.dumps(digest), [MARK, PAIR])
            openvino.save_model(model, files[0], compress_to_fp16=False)
        except RuntimeError as error:  # which it raises for a full disk too
            raise UserError(f"cannot write {path} ({str(error).splitlines()[-1]}): is its disk full?") from error
        structure = files[0].read_bytes()
    weights += _end(digest)
    with ExitStack() as undo:
        with atomic_file(path) as temporary:
            temporary.write_bytes(structure)
            with atomic_file(weights_path, in_own_folder=True) as temporary_weights:
                temporary_weights.write_bytes(weights)
            undo.callback(weights_path.unlink, missing_ok=True)
        undo.pop_all()
    return len(structure) + len(weights)


def read_openvino(path: Path) -> tuple[Any, dict[str, str]]:
    """Returns the ``openvino.Model`` and its header.

    Raises:
        UserError: openvino is not installed, or the ``.bin`` is missing or belongs to another ``.xml``.
        Exception: Of several types, if the file is none that OpenVINO can read.
    """
    core = require("openvino", "openvino").Core()
    weights_path = path.with_suffix(WEIGHTS_SUFFIX)
    if not weights_path.is_file():
        raise UserError(f"{weights_path} must lie beside {path}, as it holds the weights, but is missing: copy both")
    model = core.read_model(path)
    header = {name: value.astype(str) for name, value in model.get_rt_info([MARK]).astype(dict).items()}
    content, digest = weights_path.read_bytes(), json.loads(header[PAIR])
    weights = content.removesuffix(_end(digest))
    if len(weights) == len(content) or hashlib.sha256(weights).hexdigest() != digest:
        raise UserError(f"{weights_path} is not the weights file of {path}, or is damaged: copy both again")
    return model, header


def openvino_network(model: Any, threads: int, *, exact: bool) -> Any:
    """Compiles a model for the CPU: in float32 if ``exact``, else in what this CPU is fastest with."""
    core = require("openvino", "openvino").Core()
    options = {"INFERENCE_NUM_THREADS": threads, **({"INFERENCE_PRECISION_HINT": "f32"} if exact else {})}
    return core.compile_model(model, "CPU", options)


def run_network(network: Any, images: np.ndarray) -> np.ndarray:
    """Maps uint8 RGB images ``(batch, size, size, 3)`` to float32 ``(batch, classes)``."""
    return np.array(network(images)[0])  # a copy: the next call overwrites what it returns


def _end(digest: str) -> bytes:
    return MARK.encode() + bytes.fromhex(digest)
