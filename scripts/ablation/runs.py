"""The runs of an ablation: each is a fit in its own process and folder, and is skipped if it has finished."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from callbacks.run.config import changes
from callbacks.run.recipe import option_defaults
from callbacks.run.run_folder import RUNS, RunFolder
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError, listed
from datamodules.files.locks import require_unlocked
from lightning_modules import ImageClassifier
from scripts.ablation.arms import OWN, Arm
from scripts.ablation.outcomes import Outcome
from scripts.environment import module_process

LOG = "log.txt"
ERROR = "cbam100: error: "
# Options and groups that do not affect the results, so that they may change while an ablation is continued.
WITHOUT_EFFECT = ["prediction", "best", "trainer.enable_progress_bar"]
WITHOUT_EFFECT += [f"data.{name}" for name in ImageFolderDataModule.FREE_ON_RESUME]
DEFAULTS = {"data": option_defaults(ImageFolderDataModule), "model": option_defaults(ImageClassifier)}
SECONDS_BETWEEN_LOOKS = 0.5
# In its own process group, so that Ctrl-C reaches a fit only as the signal that ends it in order.
if sys.platform == "win32":
    OWN_GROUP: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    INTERRUPT = signal.CTRL_BREAK_EVENT
else:
    OWN_GROUP: dict[str, Any] = {"process_group": 0}
    INTERRUPT = signal.SIGTERM
EPOCH_LINE = re.compile(r"epoch (\d+)/(\d+)  .*?(val/accuracy \S+)")


@dataclass(frozen=True)
class Cell:
    """One arm with one seed, and with one fold if there are folds."""

    arm: Arm
    seed: int
    words: list[str]  # that follow cbam100, without the name of the run
    settings: dict[str, Any]  # of such a fit on this machine
    data: dict[str, dict[str, Any]]  # fingerprint of the images that it would use when the ablation starts
    run_name: str
    fold: int | None = None

    @property
    def label(self) -> str:
        """Name of the cell in messages."""
        return f"{self.arm.name}, {f'seed {self.seed}' if self.fold is None else f'fold {self.fold}'}"

    def finished_run(self) -> RunFolder | None:
        """Returns the run folder if the run has finished."""
        return next(filter(RunFolder.is_finished, RunFolder.versions(RUNS / self.run_name)), None)

    def require_idle(self) -> None:
        """Raises ``UserError`` if a fit of this cell is at work, as one may be whose ablation was killed."""
        for run in RunFolder.versions(RUNS / self.run_name):
            require_unlocked(run.path)

    def require_same_start(self) -> None:
        """Raises ``UserError`` if a run of this name, finished or not, has other settings or images than this cell."""
        for run in RunFolder.versions(RUNS / self.run_name):
            if not run.config.exists():
                continue
            before = run.read_config()
            for part, defaults in DEFAULTS.items():  # which the run had, if an option is newer
                known = self.settings.get(part, {})
                before[part] = {n: value for n, value in defaults.items() if n in known} | before.get(part, {})
            differing = [
                f"{name} {old}, now {new}"
                for name, (old, new) in changes(before, self.settings).items()
                if not _may_differ(name)
            ]
            if differing:
                raise UserError(
                    f"{run.path} was started with other settings ({listed(differing)}): use the same options, or "
                    "choose another --name"
                )
            if run.manifest.exists() and (data := run.read_manifest()["data"]) != self.data:
                raise UserError(
                    f"{run.path} was started with other images ({_counted(data)}, now {_counted(self.data)}, differing "
                    "in names or sizes in bytes): restore them, or choose another --name"
                )


def _may_differ(name: str) -> bool:
    return any(name == option or name.startswith(f"{option}.") for option in (*OWN, *WITHOUT_EFFECT))


def _counted(data: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{facts['images']:,} {split}" for split, facts in data.items())


def run_all(cells: list[Cell]) -> None:
    """Runs the cells that have not finished, one after another, and shows the progress.

    Raises:
        UserError: A fit fails, or is at work already.
    """
    console = Console(soft_wrap=True, highlight=False)
    pending = []
    for cell in cells:
        if cell.finished_run():
            require_measures(cell)
            console.print(f"{cell.label}: already finished, skipped", markup=False)
        else:
            pending.append(cell)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=1e9) as progress:
        # Without skipped ones, which would look fast.
        task = progress.add_task("", total=len(pending))
        for number, cell in enumerate(pending):

            def show(done: float, text: str, number: int = number, cell: Cell = cell) -> None:
                progress.update(task, completed=number + done, description=f"{cell.label}: {text}")

            show(0, "starting")
            text = _fit(cell, show)
            console.print(f"{number + 1}/{len(pending)} {cell.label}: {text}", markup=False)
            progress.update(task, completed=number + 1)


def _fit(cell: Cell, show: Callable[[float, str], None]) -> str:
    """Starts a fit or resumes it; returns the result of its last epoch."""
    cell.require_idle()
    folder = RUNS / cell.run_name
    folder.mkdir(parents=True, exist_ok=True)
    started = module_process("scripts.main", *cell.words, f"--run_name={cell.run_name}", "--ckpt_path=last")
    started["env"]["PYTHONIOENCODING"] = "utf-8"  # which the log is read in
    with (
        open(folder / LOG, "ab") as log,
        # A pipe would break the fit if this process is killed.
        open(folder / LOG, encoding="utf-8", errors="replace") as written,
        subprocess.Popen(**started, **OWN_GROUP, stdout=log, stderr=log) as process,
    ):
        written.seek(0, os.SEEK_END)
        try:
            text, code = "", None
            while code is None:
                code = process.poll()
                for line in written:
                    if found := EPOCH_LINE.match(line):
                        text = f"epoch {found[1]}/{found[2]}, {found[3]}"
                        show(int(found[1]) / int(found[2]), text)
                time.sleep(SECONDS_BETWEEN_LOOKS if code is None else 0)
        except BaseException:
            process.send_signal(INTERRUPT)
            process.wait()  # it saves what it has
            raise
    if code or not cell.finished_run():
        said = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        lines = said.strip().splitlines() or ["it printed nothing"]
        # The last line may be output that was buffered.
        error = next((line for line in reversed(lines) if line.startswith(ERROR)), lines[-1])
        raise UserError(
            f"the fit of {cell.label} ended with {code} ({error.removeprefix(ERROR)}) and left no finished run folder "
            f"with checkpoints and TensorBoard's events: see {folder / LOG}, and repeat the command to go on"
        )
    cell.require_same_start()  # a configuration file or the images may have changed meanwhile
    require_measures(cell)
    return text


def require_measures(cell: Cell) -> None:
    """Raises ``UserError`` if a finished cell lacks a number of the table, before the others are run."""
    _ = outcome_of(cell).measures


def outcome_of(cell: Cell) -> Outcome:
    """Reads the results of a finished cell."""
    run = cell.finished_run()
    assert run is not None
    manifest = run.read_manifest()
    facts = (manifest["size_bytes"], manifest["data"], manifest["processes"], manifest["versions"]["torch"])
    return Outcome(run.path, cell.arm, cell.seed, run.read_scalars(), *facts, cell.fold)
