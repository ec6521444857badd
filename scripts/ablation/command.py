"""``cbam100 ablate``: trains each combination of some settings with several seeds and compares the results."""

import contextlib
import io
import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jsonargparse import Namespace
from pytorch_lightning.cli import ArgsType, LightningArgumentParser
from rich.console import Console
from typing_extensions import override

from callbacks.run.config import leaves, plain_settings
from callbacks.run.recipe import BATCHES_OR_SHARE
from callbacks.run.run_folder import RUNS
from datamodules import ImageFolderDataModule
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError, listed
from datamodules.files.locks import locked
from datamodules.split_names import require_outside_splits
from scripts.ablation.runs import OWN, Cell, outcome_of, run_all
from scripts.ablation.table import require_free, write_tables
from scripts.arguments import Arguments
from scripts.cli import ClassifierCLI, require_seed
from scripts.run_logger import require_run_name

MAX_BYTES_OF_A_NAME = 200


def ablate(
    vary: Sequence[str],
    fit: Sequence[str] = (),
    *,
    config: Sequence[str] = (),
    seeds: int = 3,
    name: str | None = None,
    command: str | None = None,
) -> Path:
    """Trains each combination of settings with several seeds, and compares them; finished runs are not repeated.

    Shows its progress and writes ``ablation.md``, ``.csv`` and ``.png`` to ``runs/<name>/``.

    Example:
        >>> ablate(["model.loss=focal,cross_entropy"], ["--data.root=photos"], seeds=5)  # doctest: +SKIP
        PosixPath('runs/ablation_default/ablation.md')

    Args:
        vary: An option of fit and its values, OPTION=VALUE,VALUE; the first value is compared with each other one. May
            be repeated.
        fit: Other options of each fit, as typed after ``cbam100 fit``.
        config: Config file of each fit. May be repeated; the stem of the last names the folder.
        seeds: Number of runs of each combination, with seeds from --seed_everything on.
        name: Name of the folder below runs/; by default ablation_<config>.
        command: Command line that the table states; by default one with these arguments.

    Returns:
        Path of ``ablation.md``.

    Raises:
        UserError: An option is wrong, another ablation is using the folder, or a fit fails.
    """
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {seeds}: 3 is the default")
    words = [word for path in config for word in ("--config", str(path))] + list(fit)
    if command is None:
        named = [] if name is None else ["--name", name]
        varied = [word for text in vary for word in ("--vary", text)]
        command = shlex.join(["cbam100", "ablate", *varied, "--seeds", str(seeds), *named, *words])
    if name is None:
        name = f"ablation_{Path(config[-1]).stem if config else 'default'}"
    require_run_name(name, "--name")
    folder = RUNS / name
    cells = _cells(combinations(vary), seeds, words, name)
    require_outside_splits(folder, "working directory", Path(cells[0].settings["data"]["root"]))
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    require_writable(folder, "working directory or --name")
    with locked(folder):
        require_free(folder, list(cells[0].levels))
        for cell in cells:
            cell.require_same_start()
        run_all(cells)
        outcomes = [outcome_of(cell) for cell in cells]
        write_tables(folder, outcomes, command)
    return folder / "ablation.md"


def main(words: list[str]) -> None:
    """Runs ``cbam100 ablate`` and prints the table."""
    options, fit = ablation_parser().parse_known_args(words)
    table = ablate(**vars(options), fit=fit, command=shlex.join(["cbam100", "ablate", *words]))
    Console(soft_wrap=True, highlight=False).print(table.read_text(encoding="utf-8"), markup=False)


def ablation_parser() -> Arguments:
    """Returns the parser of the command; options that it does not know go to each fit."""
    parser = Arguments(prog="cbam100 ablate", epilog="All other options are passed to each fit.", allow_abbrev=False)
    parser.add_parameters(ablate, metavars={"vary": "OPTION=VALUE,VALUE"}, without=("fit", "command"))
    return parser


def combinations(vary: Sequence[str]) -> list[dict[str, str]]:
    """Returns every combination of values, as value by option.

    Example:
        >>> combinations(["model.loss=focal,cross_entropy"])
        [{'model.loss': 'focal'}, {'model.loss': 'cross_entropy'}]

    Args:
        vary: Texts of the form ``OPTION=VALUE,VALUE``.

    Raises:
        UserError: A text has another form, or names an option that cannot be varied.
    """
    factors: dict[str, list[str]] = {}
    for text in vary:
        name, _, values = text.partition("=")
        levels = values.split(",")
        if not (name.strip("-") and len(levels) > 1 and all(levels) and len(set(levels)) == len(levels)):
            raise UserError(
                f"--vary {text} does not name an option and two or more different values, without commas in them: "
                "write it like --vary model.loss=focal,cross_entropy"
            )
        name = name.lstrip("-")
        if name in factors or name in (*OWN, "data.root", "data.val_fraction"):
            raise UserError(
                f"--vary cannot take {name}: it is given twice, or it changes the images or names a run; leave it out"
            )
        factors[name] = levels
    return [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]


def flags(levels: dict[str, str]) -> list[str]:
    """Returns a combination as options of ``fit``."""
    return [f"--{name}={value}" for name, value in levels.items()]


def _cells(grid: list[dict[str, str]], seeds: int, fit_words: list[str], name: str) -> list[Cell]:
    settings = [_settings([*fit_words, *flags(levels)]) for levels in grid]
    _require_different(grid, settings)
    first = settings[0]["seed_everything"]
    require_seed(first + seeds - 1)
    data = {seed: _fingerprint(settings[0]["data"], seed) for seed in range(first, first + seeds)}
    cells = []
    for levels, recipe in zip(grid, settings, strict=True):
        folder = ",".join(f"{option}={quote(value, safe='')}" for option, value in levels.items())
        if len(folder) > MAX_BYTES_OF_A_NAME:
            raise UserError(f"{folder} is too long for the name of a folder: vary fewer options, or use shorter values")
        for seed, images in data.items():
            words = ["fit", *fit_words, *flags(levels), f"--seed_everything={seed}"]
            cells.append(Cell(levels, seed, words, recipe, images, f"{name}/{folder}/seed_{seed}"))
    return cells


def _require_different(grid: list[dict[str, str]], settings: list[dict[str, Any]]) -> None:
    """Raises ``UserError`` if two combinations are the same setting, as with 1e-3 and 0.001."""
    recipes = [dict(leaves(recipe)) for recipe in settings]
    for (one, recipe), (other, another) in itertools.combinations(zip(grid, recipes, strict=True), 2):
        counts = (f"trainer.{name}" for name in BATCHES_OR_SHARE)
        if recipe == another and all(type(recipe[name]) is type(another[name]) for name in counts):
            twice = [f"{option}={one[option]} and {other[option]}" for option in one if one[option] != other[option]]
            raise UserError(f"{listed(twice)} are the same setting: leave one out")


def _fingerprint(data: dict[str, Any], seed: int) -> dict[str, Any]:
    """Returns the fingerprint of the images that a fit with this seed would use now."""
    module = ImageFolderDataModule(**{**data, "cache": "none"}, seed=seed)
    module.setup("fit")
    return module.fingerprint


class _Recipe(ClassifierCLI):
    """The command line of a fit, which stops once its settings are known."""

    settings: dict[str, Any]

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        self.settings = plain_settings(self._parser("fit"), self.config.fit)

    def _prepare_fit(self, config: Namespace) -> None:
        if typed := [option for option in ("run_name", "ckpt_path") if config[option] is not None]:
            raise UserError(f"ablate sets --{typed[0]} itself: leave it out, and name the folder with --name")
        super()._prepare_fit(config)

    def _set_seed(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


def _settings(fit_words: list[str]) -> dict[str, Any]:
    """Returns all settings of a fit with these options; raises ``UserError`` as the fit would."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _Recipe(["fit", *fit_words]).settings
