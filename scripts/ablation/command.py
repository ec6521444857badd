"""``cbam100 ablate``: trains each of several settings with several seeds, or folds, and compares the results."""

import contextlib
import functools
import io
import itertools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning.cli import ArgsType, LightningArgumentParser
from rich.console import Console
from typing_extensions import override

from callbacks.predictions.out_of_fold import OUT_OF_FOLD_TABLE, write_out_of_fold
from callbacks.run.config import leaves, plain_settings
from callbacks.run.recipe import BATCHES_OR_SHARE
from callbacks.run.run_folder import RUNS
from datamodules import ImageFolderDataModule
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError, listed
from datamodules.files.locks import locked
from datamodules.files.own_files import OUT_OF_FOLD, require_replaceable
from datamodules.split_names import require_outside_splits
from lightning_modules.model_options import require_falling_rate, require_usable_options
from scripts.ablation.arms import IMAGES, Arm, comparison
from scripts.ablation.out_of_fold import collect_out_of_fold
from scripts.ablation.runs import Cell, outcome_of, run_all
from scripts.ablation.table import require_free, write_tables
from scripts.arguments import Arguments
from scripts.cli import ClassifierCLI, require_seed
from scripts.run_logger import require_run_name

MAX_BYTES_OF_A_NAME = 200
SEEDS = 3


def ablate(
    vary: Sequence[str] = (),
    fit: Sequence[str] = (),
    *,
    arms: str | Path | None = None,
    config: Sequence[str] = (),
    seeds: int | None = None,
    folds: int = 0,
    name: str | None = None,
    command: str | None = None,
) -> Path:
    """Trains each of several settings with several seeds, or folds, and compares them; finished runs are not repeated.

    Shows its progress and writes ``ablation.md``, ``.csv`` and ``.png`` to ``runs/<name>/``; with folds also
    ``out_of_fold.csv`` for each setting.

    Example:
        >>> ablate(["model.loss=focal,cross_entropy"], ["--data.root=photos"], seeds=5)  # doctest: +SKIP
        PosixPath('runs/ablation_default/ablation.md')

    Args:
        vary: An option of fit and its values, OPTION=VALUE,VALUE; the first value is compared with each other one. May
            be repeated, for all combinations of values.
        fit: Other options of each fit, as typed after ``cbam100 fit``.
        arms: YAML file of named settings, NAME: {OPTION: VALUE, …}, instead of --vary; each is compared with the one
            before and with the first. One that adds to another starts with its options, <<: *ANCHOR. An arm with a
            seed_everything of its own is compared unpaired.
        config: Config file of each fit. May be repeated; the stem of the last names the folder.
        seeds: Number of runs of each setting, with seeds from --seed_everything on; by default 3, or 1 with --folds.
        folds: Number of parts of the training images that take turns at validating, each in a run of its own, so that
            every image gets an answer from a run that did not train on it; instead of --seeds, and for one setting too,
            without --vary and --arms.
        name: Name of the folder below runs/; by default ablation_<config>, or ablation_<arms>.
        command: Command line that the table states; by default one with these arguments.

    Returns:
        Path of ``ablation.md``.

    Raises:
        UserError: An option is wrong, another ablation is using the folder, or a fit fails.
    """
    _require_usable_counts(seeds, folds)
    words = [word for path in config for word in ("--config", str(path))] + list(fit)
    if command is None:
        named = [] if name is None else ["--name", name]
        varied = [word for text in vary for word in ("--vary", text)] if arms is None else ["--arms", str(arms)]
        repeated = ["--folds", str(folds)] if folds else ["--seeds", str(seeds or SEEDS)]
        command = shlex.join(["cbam100", "ablate", *varied, *repeated, *named, *words])
    stem = Path((config or ["default"])[-1]).stem
    if name is None:
        name = f"ablation_{stem if arms is None else Path(arms).stem}"
    require_run_name(name, "--name")
    folder = RUNS / name
    compared, pairs = comparison(vary, arms, alone=stem if folds else None)
    cells = _cells(compared, seeds or SEEDS, folds, words, name)
    require_outside_splits(folder, "working directory", Path(cells[0].settings["data"]["root"]))
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    require_writable(folder, "working directory or --name")
    with locked(folder):
        require_free(folder, [*cells[0].arm.columns, *(["fold"] if folds else [])])
        tables = {arm.name: folder / arm.folder / OUT_OF_FOLD_TABLE for arm in compared if folds}
        for table in tables.values():
            require_replaceable(table, OUT_OF_FOLD, "--name")
        for cell in cells:
            cell.require_same_start()
        run_all(cells)
        outcomes = [outcome_of(cell) for cell in cells]
        answers = {name: collect_out_of_fold([cell for cell in cells if cell.arm.name == name]) for name in tables}
        for arm, table in tables.items():
            write_out_of_fold(table, answers[arm])
        write_tables(folder, outcomes, pairs, command, answers)
    return folder / "ablation.md"


def main(words: list[str]) -> None:
    """Runs ``cbam100 ablate`` and prints the table."""
    options, fit = ablation_parser().parse_known_args(words)
    table = ablate(**vars(options), fit=fit, command=shlex.join(["cbam100", "ablate", *words]))
    Console(soft_wrap=True, highlight=False).print(table.read_text(encoding="utf-8"), markup=False)


def ablation_parser() -> Arguments:
    """Returns the parser of the command; options that it does not know go to each fit."""
    parser = Arguments(prog="cbam100 ablate", epilog="All other options are passed to each fit.", allow_abbrev=False)
    metavars = {"vary": "OPTION=VALUE,VALUE", "arms": "FILE.yaml"}
    parser.add_parameters(ablate, metavars=metavars, without=("fit", "command"))
    return parser


def _require_usable_counts(seeds: int | None, folds: int) -> None:
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {seeds}: {SEEDS} is the default")
    if folds < 0 or folds == 1:
        raise UserError(f"--folds must be 2 or more, or 0 for none, got {folds}: 5 is usual")
    if folds and seeds not in (None, 1):
        raise UserError(
            f"--seeds {seeds} cannot be combined with --folds {folds}, as each seed has other folds: leave one of them "
            "out, or repeat the command with another --seed_everything and --name"
        )


def _cells(arms: list[Arm], seeds: int, folds: int, fit_words: list[str], name: str) -> list[Cell]:
    settings = [_settings(arm, fit_words) for arm in arms]
    _require_different(arms, settings)
    fingerprint = functools.cache(functools.partial(_fingerprint, settings[0]["data"]))
    cells = []
    for arm, recipe in zip(arms, settings, strict=True):
        if len(os.fsencode(arm.folder)) > MAX_BYTES_OF_A_NAME:
            raise UserError(
                f"{arm.folder} is too long for the name of a folder: vary fewer options, or use shorter values or names"
            )
        first, data = recipe["seed_everything"], recipe["data"]
        if folds and (data["folds"] or data["fold"]):
            raise UserError("ablate --folds sets --data.folds and --data.fold itself: leave them out")
        if folds:
            starts = [(first, {"folds": folds, "fold": fold}, f"fold_{fold}") for fold in range(folds)]
        else:
            require_seed(first + seeds - 1)
            starts = [(seed, {}, f"seed_{seed}") for seed in range(first, first + seeds)]
        for seed, of_fold, last in starts:
            flags = [f"--seed_everything={seed}", *(f"--data.{option}={value}" for option, value in of_fold.items())]
            words = ["fit", *fit_words, *arm.flags, *flags]
            images = fingerprint(seed, data["fraction"], **of_fold)
            run_name = "/".join(filter(None, (name, arm.folder, last)))
            own_recipe = {**recipe, "data": {**data, **of_fold}}
            cells.append(Cell(arm, seed, words, own_recipe, images, run_name, of_fold.get("fold")))
    return cells


def _require_different(arms: list[Arm], settings: list[dict[str, Any]]) -> None:
    """Raises ``UserError`` if two arms are the same setting, as with 1e-3 and 0.001, or have other images."""
    recipes = [dict(leaves(recipe)) for recipe in settings]
    for (one, recipe), (other, another) in itertools.combinations(zip(arms, recipes, strict=True), 2):
        if differing := [name for name in IMAGES if recipe[name] != another[name]]:
            raise UserError(
                f"{one.name} and {other.name} have another --{differing[0]}, so other images: give it once for all fits"
            )
        counts = (f"trainer.{name}" for name in BATCHES_OR_SHARE)
        if recipe == another and all(type(recipe[name]) is type(another[name]) for name in counts):
            values = {name: (one.columns[name], other.columns[name]) for name in one.columns}
            twice = [f"{name}={value} and {same}" for name, (value, same) in values.items() if value != same]
            raise UserError(f"{listed(twice)} are the same setting: leave one out")


def _fingerprint(data: dict[str, Any], seed: int, fraction: float, **of_fold: int) -> dict[str, Any]:
    """Returns the fingerprint of the images that a fit with these options would use now."""
    module = ImageFolderDataModule(**{**data, "cache": "none", "seed": seed, "fraction": fraction, **of_fold})
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


def _settings(arm: Arm, fit_words: list[str]) -> dict[str, Any]:
    """Returns all settings of an arm's fits; raises ``UserError`` as the fit would, with the name of a file's arm."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            settings = _Recipe(["fit", *fit_words, *arm.flags]).settings
        require_usable_options(settings["model"])
        require_falling_rate(settings["model"])
        ImageFolderDataModule(**settings["data"])
    except UserError as error:
        if not arm.is_named:
            raise
        raise UserError(f"the arm {arm.name} cannot be run: {error}") from error
    return settings
