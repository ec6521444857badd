"""``cbam100 ablate``: every combination of some settings with several seeds, and whether the differences are noise."""

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

from callbacks.run.config import leaves, plain_settings
from callbacks.run.recipe import BATCHES_OR_SHARE
from callbacks.run.run_folder import RUNS
from datamodules import ImageFolderDataModule
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError, listed
from datamodules.split_names import require_outside_splits
from scripts.ablation.runs import OWN, Cell, outcome_of, run_all
from scripts.ablation.table import require_free, write_tables
from scripts.arguments import Arguments
from scripts.cli import ClassifierCLI, require_seed
from scripts.run_logger import lock, require_run_name

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
    """Fits each combination of settings with each seed, skips what is finished, and compares.

    Shows its progress, and writes ``ablation.md``, ``.csv`` and ``.png`` to ``runs/<name>/``.

    Example:
        >>> ablate(["model.loss=focal,cross_entropy"], ["--data.root=photos"], seeds=5)  # doctest: +SKIP
        PosixPath('runs/ablation_default/ablation.md')

    Args:
        vary: OPTION=VALUE,VALUE: an option of fit and its values, of which others are compared with the first; may be
            repeated.
        fit: Other options of each fit, as typed after ``cbam100 fit``.
        config: Config file of each fit; the last one's stem names the folder.
        seeds: Runs of each combination, from --seed_everything on.
        name: Name of the folder below runs/; by default ablation_<config>.
        command: What the table says it comes from, where that was typed otherwise.

    Returns:
        The table.

    Raises:
        UserError: An option is wrong, another ablation is at work in the folder, or a fit fails.
    """
    if seeds < 1:
        raise UserError(f"expected --seeds of at least 1, got {seeds}: 3 show how large the noise is")
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
    with lock(folder) as file:
        require_free(folder, list(cells[0].levels))
        for cell in cells:
            cell.require_same_start()
        run_all(cells, file.fileno())
        outcomes = [outcome_of(cell) for cell in cells]
        write_tables(folder, outcomes, command)
    return folder / "ablation.md"


def main(words: list[str]) -> None:
    """``cbam100 ablate`` with these words; prints the table."""
    options, fit = ablation_parser().parse_known_args(words)
    table = ablate(**vars(options), fit=fit, command=shlex.join(["cbam100", "ablate", *words]))
    Console(soft_wrap=True, highlight=False).print(table.read_text(), markup=False)


def ablation_parser() -> Arguments:
    """The options of the command; all others go to each fit."""
    parser = Arguments(prog="cbam100 ablate", epilog="Any option of fit may follow.", allow_abbrev=False)
    parser.add_parameters(ablate, metavars={"vary": "OPTION=VALUE,VALUE"}, without=("fit", "command"))
    return parser


def combinations(vary: Sequence[str]) -> list[dict[str, str]]:
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


def _cells(grid: list[dict[str, str]], seeds: int, fit_words: list[str], name: str) -> list[Cell]:
    settings = [_settings([*fit_words, *flags(levels)]) for levels in grid]
    _require_different(grid, settings)
    first = settings[0]["seed_everything"]
    require_seed(first + seeds - 1)
    data = {seed: _fingerprint(settings[0]["data"], seed) for seed in range(first, first + seeds)}
    return [
        Cell(
            levels,
            seed,
            ["fit", *fit_words, *flags(levels), f"--seed_everything={seed}"],
            recipe,
            data[seed],
            f"{name}/{_folder(levels)}/seed_{seed}",
        )
        for levels, recipe in zip(grid, settings, strict=True)
        for seed in data
    ]


def _folder(levels: dict[str, str]) -> str:
    folder = ",".join(f"{option}={quote(value, safe='')}" for option, value in levels.items())
    if len(folder) > MAX_BYTES_OF_A_NAME:
        raise UserError(f"expected values that make a folder's name, got {folder}: vary fewer, or shorter ones")
    return folder


def _require_different(grid: list[dict[str, str]], settings: list[dict[str, Any]]) -> None:
    """Raises ``UserError`` where two combinations are one that is typed twice, as 1e-3 and 0.001 are."""
    recipes = [dict(leaves(recipe)) for recipe in settings]
    for (one, recipe), (other, another) in itertools.combinations(zip(grid, recipes, strict=True), 2):
        counts = (f"trainer.{name}" for name in BATCHES_OR_SHARE)
        if recipe == another and all(type(recipe[name]) is type(another[name]) for name in counts):
            twice = [f"{option}={one[option]} and {other[option]}" for option in one if one[option] != other[option]]
            raise UserError(f"expected values that differ, {listed(twice)} are one setting: leave one out")


def _fingerprint(data: dict[str, Any], seed: int) -> dict[str, Any]:
    """Of the images that a fit with this seed would see now."""
    module = ImageFolderDataModule(**{**data, "cache": "none"}, seed=seed)
    module.setup("fit")
    return module.fingerprint


class _Recipe(ClassifierCLI):
    """The command line of a fit, which ends where its settings are known."""

    settings: dict[str, Any]

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Keeps what ``config.yaml`` would hold."""
        super().parse_arguments(parser, args)
        self.settings = plain_settings(self._parser("fit"), self.config.fit)

    def _prepare_fit(self, config: Namespace) -> None:
        if typed := [option for option in ("run_name", "ckpt_path") if config[option] is not None]:
            raise UserError(
                f"expected --name for the folder, and no --{typed[0]}, which an ablation sets: leave it out"
            )
        super()._prepare_fit(config)

    def _set_seed(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


def _settings(fit_words: list[str]) -> dict[str, Any]:
    """The whole configuration that these options lead to; raises ``UserError`` as fit would."""
    with contextlib.redirect_stdout(io.StringIO()):
        return _Recipe(["fit", *fit_words]).settings
