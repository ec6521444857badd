"""The fresh process of an export: ``python -m scripts.export.check FILE ROOT ANSWERS OPTIONS``."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.workers.parent_watch import end_with_parent
from lightning_modules.exports.runtime import open_runtime
from lightning_modules.trained_model import read_trained_model
from scripts.console import hush_libraries
from scripts.evaluation import validation_data
from scripts.export.validation import pixels, validation_batches
from scripts.faults import user_sentence
from scripts.hardware import own_threads


def main(path: Path, root: Path, answers: Path, options: Mapping[str, Any]) -> None:
    """Opens the file, which tries its self-test, runs it over the validation images, and writes its probabilities."""
    runtime = open_runtime(path, threads=torch.get_num_threads())
    data = validation_data(read_trained_model(path), {**options, "root": str(root)})
    parts, seconds = [], 0.0
    for batch in validation_batches(data, "the exported file"):
        images = pixels(batch)
        start = time.perf_counter()
        parts.append(runtime.probabilities(images))
        seconds += time.perf_counter() - start
    probabilities = np.concatenate(parts)
    facts = {"runtime": runtime.description, "images_per_second": len(probabilities) / max(seconds, 1e-9)}
    np.savez(answers, probabilities=probabilities, facts=json.dumps(facts))


if __name__ == "__main__":
    end_with_parent(os.getppid())
    hush_libraries()
    path, root, answers, options = sys.argv[1:]
    try:
        with own_threads():
            main(Path(path), Path(root), Path(answers), json.loads(options))
    except Exception as error:
        if sentence := user_sentence(error):
            print("cbam100: error:", *sentence.split(), file=sys.stderr)
            raise SystemExit(2) from error
        raise
