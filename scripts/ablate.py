"""``cbam100 ablate``: every combination of some settings with several seeds, and whether the differences are noise."""

import contextlib
import io
import itertools
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rich.console import Console

from datamodules.atomic_file import require_writable
from datamodules.errors import UserError
from scripts.ablation_runs import OWN, Cell, locked, outcome_of, run_all
from scripts.ablation_table import write_tables
from scripts.arguments import Arguments
from scripts.cli import ClassifierCLI
from scripts.run_folder import RUNS

MAX_BYTES_OF_A_NAME = 200


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
    with locked(folder) as lock:
        for cell in cells:
            cell.require_same_settings()
        run_all(cells, lock)
        outcomes = [outcome_of(cell) for cell in cells]
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
