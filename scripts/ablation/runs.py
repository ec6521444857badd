"""The runs of an ablation: each a fit in a process and a folder of its own, skipped where it is finished."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from callbacks.run.config import changes
from callbacks.run.run_folder import RUNS, RunFolder
from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError, listed
from scripts.ablation.outcomes import Outcome
from scripts.module_process import module_process

LOG = "log.txt"
ERROR = "cbam100: error: "
OWN = ("seed_everything", "run_name", "ckpt_path")  # options that an ablation sets
# Options and groups that change nothing of what is compared, so that an ablation may go on with others.
WITHOUT_EFFECT = ["prediction", "best", "trainer.enable_progress_bar"]
WITHOUT_EFFECT += [f"data.{name}" for name in ImageFolderDataModule.FREE_ON_RESUME]
SECONDS_BETWEEN_LOOKS = 0.5
EPOCH_LINE = re.compile(r"epoch (\d+)/(\d+)  .*?(val/accuracy \S+)")


@dataclass(frozen=True)
class Cell:
    """One combination with one seed.

    Attributes:
        levels: Value of each varied option, as typed.
        seed: ``--seed_everything``.
        words: What ``cbam100`` is called with, but for the name of the run.
        settings: The whole configuration that they lead to on this machine.
        data: Fingerprint of the images that a fit with this seed would see when the ablation begins.
        run_name: Of the folder below ``runs/``.
    """

    levels: dict[str, str]
    seed: int
    words: list[str]
    settings: dict[str, Any]
    data: dict[str, dict[str, Any]]
    run_name: str

    @property
    def label(self) -> str:
        """For people."""
        return f"{' '.join(f'{name}={value}' for name, value in self.levels.items())} seed {self.seed}"

    def finished_run(self) -> RunFolder | None:
        """The run folder, if the run has come to its end."""
        return next(filter(RunFolder.is_finished, RunFolder.versions(RUNS / self.run_name)), None)

    def require_same_start(self) -> None:
        """Checks that a run of this name, finished or not, was begun as one would be that begins now.

        Raises:
            UserError: Its settings or images are others.
        """
        for run in RunFolder.versions(RUNS / self.run_name):
            if not run.config.exists():
                continue
            differing = [
                f"{name} {old}, got {new}"
                for name, (old, new) in changes(run.read_config(), self.settings).items()
                if not _may_differ(name)
            ]
            if differing:
                raise UserError(
                    f"expected the settings with which {run.path} was begun, {listed(differing)}: use the same "
                    "options, or choose another --name"
                )
            if run.manifest.exists() and (data := run.read_manifest()["data"]) != self.data:
                raise UserError(
                    f"expected the images with which {run.path} was begun, {_counted(data)}, there are "
                    f"{_counted(self.data)} (names or sizes in bytes differ): restore them, or choose another --name"
                )


def _may_differ(name: str) -> bool:
    return any(name == option or name.startswith(f"{option}.") for option in (*OWN, *WITHOUT_EFFECT))


def _counted(data: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{facts['images']:,} {split}" for split, facts in data.items())


def run_all(cells: list[Cell], lock: int) -> None:
    """Runs what is not finished, with one display of the progress; ``lock`` goes to each fit.

    Raises:
        UserError: A fit fails.
    """
    console = Console(soft_wrap=True, highlight=False)
    pending = []
    for cell in cells:
        if cell.finished_run():
            require_measures(cell)
            console.print(f"{cell.label}: finished before, skipped", markup=False)
        else:
            pending.append(cell)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=1e9) as progress:
        # Skipped ones stay out of it, since they would count as fast.
        task = progress.add_task("", total=len(pending))
        for number, cell in enumerate(pending):

            def show(done: float, text: str, number: int = number, cell: Cell = cell) -> None:
                progress.update(task, completed=number + done, description=f"{cell.label}: {text}")

            show(0, "starting")
            text = _fit(cell, lock, show)
            console.print(f"{number + 1}/{len(pending)} {cell.label}: {text}", markup=False)
            progress.update(task, completed=number + 1)


def _fit(cell: Cell, lock: int, show: Callable[[float, str], None]) -> str:
    """Runs a fit, or goes on with it; returns what its last epoch came to."""
    folder = RUNS / cell.run_name
    folder.mkdir(parents=True, exist_ok=True)
    started = module_process("scripts.main", *cell.words, f"--run_name={cell.run_name}", "--ckpt_path=last")
    with (
        open(folder / LOG, "ab") as log,
        open(folder / LOG, errors="replace") as written,  # a pipe would break the fit when this process is killed
        # In a process group of its own, so that Ctrl-C comes once, from here.
        subprocess.Popen(**started, stdout=log, stderr=log, process_group=0, pass_fds=[lock]) as process,
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
            process.send_signal(signal.SIGTERM)
            process.wait()  # it saves what it has
            raise
    if code or not cell.finished_run():
        lines = (folder / LOG).read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        error = next((line for line in reversed(lines) if line.startswith(ERROR)), lines[-1])  # outputs are buffered
        raise UserError(
            f"expected {cell.label} to leave a finished run folder with checkpoints and TensorBoard's events, its fit "
            f"ended with {code} ({error.removeprefix(ERROR)}): see {folder / LOG}, and start the same "
            "command again to go on"
        )
    cell.require_same_start()  # a configuration file or the images may have changed in between
    require_measures(cell)
    return text


def require_measures(cell: Cell) -> None:
    """Raises ``UserError`` where a finished cell lacks a number of the table, before others are run for nothing."""
    _ = outcome_of(cell).measures


def outcome_of(cell: Cell) -> Outcome:
    """What a finished cell came to."""
    run = cell.finished_run()
    assert run is not None
    manifest = run.read_manifest()
    return Outcome(
        run.path,
        cell.levels,
        cell.seed,
        run.read_scalars(),
        manifest["size_bytes"],
        manifest["data"],
        manifest["processes"],
        manifest["versions"]["torch"],
    )
