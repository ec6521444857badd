"""The folder of a run: what its files are called, and what they say. No other room spells their names."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datamodules.files.errors import UserError

if TYPE_CHECKING:
    from tensorboard.backend.event_processing.event_accumulator import ScalarEvent

RUNS = Path("runs")
PATTERN = f"{RUNS}/<name>/version_<k>"  # for people
_VERSION = re.compile(r"version_([0-9]+)")


@dataclass(frozen=True)
class RunFolder:
    """``runs/<name>/version_<k>/``.

    Args:
        path: Of the folder, which need not exist.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Every setting of the fit, in YAML."""
        return self.path / "config.yaml"

    @property
    def manifest(self) -> Path:
        """What made the run what it is, and what happened to it, in JSON."""
        return self.path / "manifest.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of both checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The state to go on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The state of the best epoch."""
        return self.checkpoints / "best.ckpt"

    @property
    def weights(self) -> Path:
        """The weights of the best epoch, to ship."""
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        """The page that ``cbam100 report`` writes."""
        return self.path / "report.html"

    @property
    def name(self) -> str:
        """Of the runs whose versions are counted together."""
        return self.path.parent.name

    @property
    def version(self) -> int | None:
        """Its number, or None of a folder that is no run's."""
        found = _VERSION.fullmatch(self.path.name)
        return int(found[1]) if found else None

    @classmethod
    def make(cls, folder: Path, version: int) -> "RunFolder":
        """Makes the folder of a version below that of a name.

        Raises:
            FileExistsError: There is one.
        """
        run = cls(folder / f"version_{version}")
        run.path.mkdir(parents=True)
        return run

    @classmethod
    def of_last(cls, checkpoint: Path) -> "RunFolder | None":
        """The run whose ``last.ckpt`` this is; None of another file."""
        checkpoint = checkpoint.absolute()
        run = cls(checkpoint.parent.parent)
        return run if run.version is not None and run.last == checkpoint else None

    @classmethod
    def versions(cls, folder: Path) -> Iterator["RunFolder"]:
        """The runs below the folder of a name."""
        return (run for run in map(cls, folder.glob("version_*")) if run.version is not None)

    @classmethod
    def newest(cls, name: str) -> "RunFolder | None":
        """The run below ``runs/<name>/`` whose ``last.ckpt`` was written last."""
        begun = [run for run in cls.versions(RUNS / name) if run.last.exists()]
        return max(begun, key=lambda run: run.last.stat().st_mtime_ns, default=None)

    def read_manifest(self) -> dict[str, Any]:
        """The content of the manifest.

        Raises:
            UserError: There is none, or it cannot be read.
        """
        try:
            manifest = json.loads(self.manifest.read_text())
            _ = manifest["data"], manifest["versions"], manifest["events"][-1]["event"]
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise UserError(
                f"expected a run folder of a fit, with its {self.manifest.name}, at {self.path}, it cannot be read "
                f"({type(error).__name__}: {error}): pass {PATTERN}"
            ) from error
        return manifest

    def read_config(self) -> dict[str, Any]:
        """The settings of the fit.

        Raises:
            UserError: There are none, or they cannot be read.
        """
        try:
            config = yaml.safe_load(self.config.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"expected {self.config}, it cannot be read ({error}): pass the folder of a fit") from error
        if not (isinstance(config, dict) and {"trainer", "model", "data", "size_budget"} <= config.keys()):
            raise UserError(
                f"expected {self.config} to hold the settings of a fit, it is damaged: pass the folder of another"
            )
        return config

    def read_scalars(self) -> dict[str, dict[int, float]]:
        """The last value of each scalar at each step (of this project's, at each epoch), from TensorBoard's files."""
        return {tag: {event.step: event.value for event in events} for tag, events in self.read_scalar_events().items()}

    def read_scalar_events(self) -> "dict[str, list[ScalarEvent]]":
        """Reads every event of each scalar, with its step, value and wall time, from TensorBoard's files."""
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator  # slow to import

        # All of them, where it would keep a sample
        events = EventAccumulator(str(self.path), size_guidance={SCALARS: 0})
        events.Reload()
        return {tag: events.Scalars(tag) for tag in events.Tags()[SCALARS]}

    def is_finished(self) -> bool:
        """Whether the fit has come to its end."""
        return self.manifest.exists() and self.read_manifest()["events"][-1]["event"] == "finished"
