"""``cbam100 ablate``: every combination of some settings with several seeds, and whether the differences are noise."""

import contextlib
import fcntl
import io
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datamodules.atomic_file import require_writable
from datamodules.errors import UserError
from scripts.ablation_outcomes import Outcome
from scripts.ablation_table import write_tables
from scripts.arguments import Arguments
from scripts.cli import ClassifierCLI
from scripts.run_folder import RUNS
from scripts.run_history import CONFIG, is_finished, leaves, read_config, read_manifest, read_scalars

LOG, LOCK = "log.txt", ".lock"
OWN = ("seed_everything", "run_name", "ckpt_path")  # options that an ablation sets
SECONDS_BETWEEN_LOOKS = 0.5
MAX_BYTES_OF_A_NAME = 200
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


def ablate(words: list[str]) -> None:
    """Runs the command.

    Args:
        words: What stands after ``ablate``.

    Raises:
        UserError: An option is wrong, another ablation is at work in the folder, or a fit fails.
    """
    parser = ablation_parser()
    options, fit_words = parser.parse_known_args(words)
    if options.seeds < 1:
        raise UserError(f"expected --seeds of at least 1, got {options.seeds}: 3 show how large the noise is")
    fit_words = [word for config in options.config for word in ("--config", config)] + fit_words
    name = options.name or f"ablation_{Path(options.config[-1]).stem if options.config else 'default'}"
    folder = RUNS / name
    grid = combinations(options.vary)
    cells = [cell for levels in grid for cell in _cells(levels, options.seeds, fit_words, name)]
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    require_writable(folder, "working directory or --name")
    with _locked(folder) as lock:
        for cell in cells:
            cell.require_same_settings()
        _run_all(cells, lock)
        outcomes = [_outcome(cell) for cell in cells]
    write_tables(folder, outcomes, command=shlex.join(["cbam100", "ablate", *words]))
    Console(soft_wrap=True, highlight=False).print((folder / "ablation.md").read_text(), markup=False)


def ablation_parser() -> Arguments:
    """The options of the command; all others go to each fit."""
    parser = Arguments(
        prog="cbam100 ablate",
        description="Runs fit for each combination of settings and each seed, skips what is finished, and writes "
        "ablation.md, .csv and .png to runs/<name>/. Any option of fit may follow.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="append", default=[], help="for fit; the last one's stem names the folder")
    parser.add_argument(
        "--vary", action="append", required=True, metavar="OPTION=VALUE,VALUE",
        help="an option of fit and its values, of which others are compared with the first; may be repeated",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="runs of each combination, from --seed_everything on (3)")
    parser.add_argument("--name", help="of the folder below runs/ (ablation_<config>)")
    return parser


def combinations(vary: list[str]) -> list[dict[str, str]]:
    """Every combination of values, each by option.

    Args:
        vary: Texts ``OPTION=VALUE,VALUE``.

    Raises:
        UserError: A text is something else, or names an option that cannot be varied.
    """
    factors: dict[str, list[str]] = {}
    for text in vary:
        name, _, values = text.partition("=")
        levels = values.split(",")
        if not (name.strip("-") and len(levels) > 1 and all(levels) and len(set(levels)) == len(levels)):
            raise UserError(
                f"expected --vary OPTION=VALUE,VALUE with two different values or more, got {text}: write, for "
                "example, --vary model.loss=focal,cross_entropy; a value has no comma"
            )
        name = name.lstrip("-")
        if name in factors or name in (*OWN, "data.root", "data.val_fraction"):
            raise UserError(
                f"expected options to vary once each, and none that changes the images or names a run, got {name}: "
                "leave it out"
            )
        factors[name] = levels
    return [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]


def flags(levels: dict[str, str]) -> list[str]:
    """A combination as options of ``fit``."""
    return [f"--{name}={value}" for name, value in levels.items()]


def _cells(levels: dict[str, str], seeds: int, fit_words: list[str], name: str) -> list[Cell]:
    settings = _settings([*fit_words, *flags(levels)])
    if typed := [option for option in ("run_name", "ckpt_path") if settings[option] is not None]:
        raise UserError(f"expected --name for the folder, and no --{typed[0]}, which an ablation sets: leave it out")
    folder = ",".join(f"{option}={quote(value, safe='')}" for option, value in levels.items())
    if len(folder) > MAX_BYTES_OF_A_NAME:
        raise UserError(f"expected values that make a folder's name, got {folder}: vary fewer, or shorter ones")
    first = int(settings["seed_everything"])
    return [
        Cell(
            levels,
            seed,
            ["fit", *fit_words, *flags(levels), f"--seed_everything={seed}"],
            settings,
            f"{name}/{folder}/seed_{seed}",
        )
        for seed in range(first, first + seeds)
    ]


def _settings(fit_words: list[str]) -> dict[str, Any]:
    """The whole configuration that these options lead to; raises ``UserError`` as fit would."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        ClassifierCLI(["fit", *fit_words, "--print_config"])
    return yaml.safe_load(printed.getvalue())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
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


def _run_all(cells: list[Cell], lock: int) -> None:
    console = Console(soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=1e9) as progress:
        task = progress.add_task("", total=len(cells))
        for number, cell in enumerate(cells):
            if cell.finished_run():
                console.print(f"{number + 1}/{len(cells)} {cell.label}: finished before, skipped", markup=False)
            else:

                def show(done: float, text: str, number: int = number, cell: Cell = cell) -> None:
                    progress.update(task, completed=number + done, description=f"{cell.label}: {text}")

                show(0, "starting")
                text = _fit(cell, lock, show)
                console.print(f"{number + 1}/{len(cells)} {cell.label}: {text}", markup=False)
            progress.update(task, completed=number + 1)


def _fit(cell: Cell, lock: int, show: Callable[[float, str], None]) -> str:
    """Runs a fit, or goes on with it; returns what its last epoch came to."""
    folder = RUNS / cell.run_name
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "scripts.main", *cell.words, f"--run_name={cell.run_name}", "--ckpt_path=last"]
    with (
        open(folder / LOG, "ab") as log,
        open(folder / LOG, errors="replace") as written,  # a pipe would break the fit when this process is killed
        # In a process group of its own, so that Ctrl-C comes once, from here.
        subprocess.Popen(words, stdout=log, stderr=log, process_group=0, pass_fds=[lock]) as process,
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


def _outcome(cell: Cell) -> Outcome:
    run = cell.finished_run()
    assert run is not None
    manifest = read_manifest(run)
    return Outcome(cell.levels, cell.seed, read_scalars(run), manifest["size_bytes"], manifest["data"])
