"""Running of an exported file in a process that has nothing but the file and the images."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.environment import module_process

CHECK = "scripts.export.check"  # the module that the process runs
ERROR = "cbam100: error: "


@dataclass(frozen=True)
class FileAnswers:
    """What an exported file answered in a fresh process.

    Attributes:
        probabilities: float32 ``(images, classes)``, in the order of the validation images.
        runtime: Which runtime ran it, on how many threads and in which precision.
        images_per_second: Speed of the runtime alone.
    """

    probabilities: np.ndarray
    runtime: str
    images_per_second: float


class FileFailedError(Exception):
    """The file could not be run; the message says why, and ends without a full stop."""


def answers_in_fresh_process(path: Path, root: Path, options: Mapping[str, Any]) -> FileAnswers:
    """Loads a file in a new process, tries its self-test, and runs it on all validation images.

    Args:
        path: The exported file.
        root: Folder of the data.
        options: The data module's other options; paths are absolute.

    Raises:
        FileFailedError: The process ended with an error.
    """
    answers, log = path.with_name("answers.npz"), path.with_name("log.txt")
    started = module_process(CHECK, str(path), str(root.absolute()), str(answers), json.dumps(options))
    with open(log, "wb") as errors, subprocess.Popen(**started, stderr=errors) as process:
        try:
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [f"it ended with {code}"]
        error = next((line for line in reversed(lines) if line.startswith(ERROR)), lines[-1])
        raise FileFailedError(error.removeprefix(ERROR))
    with np.load(answers) as arrays:
        facts = json.loads(str(arrays["facts"]))
        return FileAnswers(arrays["probabilities"], **facts)
