"""The folder of a run: the names of its files, which are spelled only here, and their contents."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datamodules.files.errors import UserError

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import ScalarEvent

RUNS = Path("runs")
PATTERN = f"{RUNS}/<name>/version_<k>"  # for messages
_VERSION = re.compile(r"version_([0-9]+)")


class RunFolder:
    """The folder ``runs/<name>/version_<k>/``, which need not exist.

    >>> RunFolder(Path("runs/default/version_3")).last.as_posix()
    'runs/default/version_3/checkpoints/last.ckpt'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.parent.name  # shared by all versions of the run
        self.config = path / "config.yaml"  # all settings of the fit
        self.manifest = path / "manifest.json"  # versions, data, best epoch and events
        self.checkpoints = path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"  # the state to resume from
        self.best = self.checkpoints / "best.ckpt"  # the state of the best epoch
        self.weights = path / "model.safetensors"  # the exported weights of the best epoch
        self.report = path / "report.html"
        self.labels_to_check = path / "labels_to_check.csv"  # of the report

    @property
    def version(self) -> int | None:
        """The version number, or None if the folder is not a run's."""
        found = _VERSION.fullmatch(self.path.name)
        return int(found[1]) if found else None

    @classmethod
    def make(cls, folder: Path, version: int) -> "RunFolder":
        """Creates the folder of a version below the folder of a name.

        Raises:
            FileExistsError: The folder exists.
        """
        run = cls(folder / f"version_{version}")
        run.path.mkdir(parents=True)
        return run

    @classmethod
    def of_last(cls, checkpoint: Path) -> "RunFolder | None":
        """Returns the run whose ``last.ckpt`` this is, or None."""
        checkpoint = checkpoint.absolute()
        run = cls(checkpoint.parent.parent)
        return run if run.version is not None and run.last == checkpoint else None

    @classmethod
    def versions(cls, folder: Path) -> Iterator["RunFolder"]:
        """Yields the runs below the folder of a name."""
        return (run for run in map(cls, folder.glob("version_*")) if run.version is not None)

    @classmethod
    def newest(cls, name: str) -> "RunFolder | None":
        """Returns the run below ``runs/<name>/`` with the newest ``last.ckpt``, or None."""
        begun = [run for run in cls.versions(RUNS / name) if run.last.exists()]
        return max(begun, key=lambda run: run.last.stat().st_mtime_ns, default=None)

    def read_manifest(self) -> dict[str, Any]:
        """Reads the manifest.

        Raises:
            UserError: The manifest is missing or damaged.
        """
        try:
            manifest = json.loads(self.manifest.read_text(encoding="utf-8"))
            _ = manifest["data"], manifest["versions"], manifest["events"][-1]["event"]
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise UserError(
                f"{self.path} is not the run folder of a fit, as its {self.manifest.name} cannot be read "
                f"({type(error).__name__}: {error}): pass {PATTERN}"
            ) from error
        return manifest

    def read_config(self) -> dict[str, Any]:
        """Reads the settings of the fit.

        Raises:
            UserError: The file is missing or damaged.
        """
        try:
            config = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"cannot read {self.config} ({error}): pass the run folder of a fit") from error
        if not (isinstance(config, dict) and {"trainer", "model", "data", "size_budget"} <= config.keys()):
            raise UserError(f"{self.config} is damaged, it lacks settings of a fit: pass another run folder")
        return config

    def read_scalars(self) -> dict[str, dict[int, float]]:
        """The last value of each scalar at each step (of this project's, at each epoch), from TensorBoard's files."""
        return {tag: {event.step: event.value for event in events} for tag, events in self.read_scalar_events().items()}

    def read_scalar_events(self) -> "dict[str, list[ScalarEvent]]":
        """Reads every event of each scalar, with its step, value and wall time, from TensorBoard's files."""
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator  # slow to import

        # Size 0 keeps all values, where the default keeps a sample.
        events = EventAccumulator(str(self.path), size_guidance={SCALARS: 0})
        events.Reload()
        return {tag: events.Scalars(tag) for tag in events.Tags()[SCALARS]}

    def is_finished(self) -> bool:
        """Returns whether the fit has finished."""
        return self.manifest.exists() and self.read_manifest()["events"][-1]["event"] == "finished"
