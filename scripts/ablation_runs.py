"""The runs of an ablation: each a fit in a process and a folder of its own, skipped where it is finished."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.errors import UserError
from scripts.ablation_outcomes import Outcome
from scripts.module_process import module_process
from scripts.run_folder import RUNS
from scripts.run_history import CONFIG, is_finished, leaves, read_config, read_manifest, read_scalars

LOG, LOCK = "log.txt", ".lock"
OWN = ("seed_everything", "run_name", "ckpt_path")  # options that an ablation sets
SECONDS_BETWEEN_LOOKS = 0.5
EPOCH_LINE = re.compile(r"epoch (\d+)/(\d+)  .*?(val/accuracy \S+)")


@dataclass(frozen=True)
class Cell:
    """One combination with one seed.

    Attributes:
        levels: Value of each varied option, as typed.
        seed: ``--seed_everything``.
        words: What ``cbam100`` is called with, but for the name of the run.
        settings: The whole configuration that they lead to.
        run_name: Of the folder below ``runs/``.
    """

    levels: dict[str, str]
    seed: int
    words: list[str]
    settings: dict[str, Any]
    run_name: str

    @property
    def label(self) -> str:
        """For people."""
        return f"{' '.join(f'{name}={value}' for name, value in self.levels.items())} seed {self.seed}"

    def finished_run(self) -> Path | None:
        """The run folder, if the run has come to its end."""
        return next(filter(is_finished, (RUNS / self.run_name).glob("version_*")), None)

    def require_same_settings(self) -> None:
        """Raises ``UserError`` where a run of this name, finished or not, was begun with others."""
        for path in (RUNS / self.run_name).glob(f"version_*/{CONFIG}"):
            begun = dict(leaves(read_config(path.parent)))
            for name, value in leaves(self.settings):
                # What is None is filled in by the machine.
                if value is not None and name not in OWN and begun.get(name) != value:
                    raise UserError(
                        f"expected the settings with which {path.parent} was begun, {name} {begun.get(name)}, got "
                        f"{value}: use the same options, or choose another --name"
                    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """A lock that fits inherit: where this process is killed and its fit goes on, nobody else may write there."""
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"expected {folder} to be at nobody's work, an ablation or its fit holds it: wait for its end, or "
                "choose another --name"
            ) from error
        yield file.fileno()


def run_all(cells: list[Cell], lock: int) -> None:
    """Runs what is not finished, with one display of the progress; ``lock`` goes to each fit.

    Raises:
        UserError: A fit fails.
    """
    console = Console(soft_wrap=True, highlight=False)
    pending = []
    for cell in cells:
        if cell.finished_run():
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
        last = ((folder / LOG).read_text(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        raise UserError(
            f"expected {cell.label} to leave a finished run folder with checkpoints and TensorBoard's events, its fit "
            f"ended with {code} ({last.removeprefix('cbam100: error: ')}): see {folder / LOG}, and start the same "
            "command again to go on"
        )
    return text


def outcome_of(cell: Cell) -> Outcome:
    """What a finished cell came to."""
    run = cell.finished_run()
    assert run is not None
    manifest = read_manifest(run)
    torch_version = manifest["versions"]["torch"]
    return Outcome(cell.levels, cell.seed, read_scalars(run), manifest["size_bytes"], manifest["data"], torch_version)
