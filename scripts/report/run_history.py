"""What a run folder says of its epochs."""

import json
from pathlib import Path
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from callbacks.run.config import CONFIG
from callbacks.run.manifest import NAME as MANIFEST
from datamodules.files.errors import UserError


def read_scalars(run: Path) -> dict[str, dict[int, float]]:
    """The last value of each scalar at each step (of this project's, at each epoch), from TensorBoard's event files."""
    events = EventAccumulator(str(run), size_guidance={SCALARS: 0})  # all of them, where it would keep a sample
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()[SCALARS]}


def read_manifest(run: Path) -> dict[str, Any]:
    """The run's ``manifest.json``.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    try:
        manifest = json.loads((run / MANIFEST).read_text())
        _ = manifest["data"], manifest["versions"], manifest["events"][-1]["event"]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(
            f"expected a run folder of a fit, with its {MANIFEST}, at {run}, it cannot be read "
            f"({type(error).__name__}: {error}): pass runs/<name>/version_<k>"
        ) from error
    return manifest


def read_config(run: Path) -> dict[str, Any]:
    """The run's ``config.yaml``.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    path = run / CONFIG
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"expected {path}, it cannot be read ({error}): pass the folder of a fit") from error
    if not (isinstance(config, dict) and {"trainer", "model", "data", "size_budget"} <= config.keys()):
        raise UserError(f"expected {path} to hold the settings of a fit, it is damaged: pass the folder of another")
    return config


def is_finished(run: Path) -> bool:
    """Whether the fit in this folder has come to its end."""
    return (run / MANIFEST).exists() and read_manifest(run)["events"][-1]["event"] == "finished"
