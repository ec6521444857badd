"""What an ablation compares: arms, which are sets of options, and the pairs of arms to compare."""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml

from datamodules.files.errors import UserError, listed
from datamodules.lookalike_names import look_alike
from datamodules.sources.data_set import LABEL_OPTIONS
from scripts.config_files import read_yaml

OWN = ("seed_everything", "run_name", "ckpt_path")  # options that ablate sets
# Options that decide which images a data set has and which of them validate; with data.fraction these stay the same.
IMAGES = (
    *("data.root", *(f"data.{name}" for name in LABEL_OPTIONS)),
    *("data.val_fraction", "data.folds", "data.fold", "data.group_column", "data.group_pattern"),
)
NULL = "tag:yaml.org,2002:null"
# Not in a folder's name on Windows, or one of its device names; not in a table's cell; not a file beside the folders.
UNFIT = re.compile(
    r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]|^[\s.]|[\s.]$|^$|^ablation(_runs)?\.(md|csv|png)$'
    r"|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)",
    re.IGNORECASE,
)
OPTION = re.compile(r"(--)?[A-Za-z_][\w.-]*\+?")
FORM = "'name: {model.loss: cross_entropy}'"


@dataclass(frozen=True)
class Arm:
    """A set of options that is trained with each seed."""

    name: str  # in tables and messages
    columns: dict[str, str]  # that identify it in the CSV files
    options: dict[str, str]  # in which its fits differ from those of other arms, as typed

    @property
    def flags(self) -> list[str]:
        """The options as words of ``fit``."""
        return [f"--{name}={value}" for name, value in self.options.items()]

    @property
    def is_named(self) -> bool:
        """Whether a file gives it its name and options; else they were typed."""
        return self.columns != self.options

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        if self.is_named:
            return self.name
        return ",".join(f"{option}={quote(value, safe='')}" for option, value in self.options.items())


@dataclass(frozen=True)
class Pair:
    """Two arms to compare."""

    name: str  # such as model.loss: cross_entropy − focal (model.attention=cbam)
    base: Arm
    other: Arm
    names: tuple[str, str]  # of base and other in a sentence on the better of them


def comparison(vary: Sequence[str], arms: str | Path | None, alone: str | None = None) -> tuple[list[Arm], list[Pair]]:
    """Returns the arms of ``--vary`` or ``--arms``, and the pairs to compare.

    Args:
        vary: As for ``combinations``.
        arms: As for ``read_arms``.
        alone: Name of the one arm to return if there is neither; by default there must be one.

    Raises:
        UserError: There is neither or both of them, or one is wrong.
    """
    if alone and not vary and arms is None:
        return [Arm(alone, {}, {})], []
    if bool(vary) == (arms is not None):
        raise UserError(
            "ablate compares either the values of --vary OPTION=VALUE,VALUE or the arms of --arms FILE.yaml: pass one "
            "of the two, or --folds for one setting"
        )
    if arms is None:
        grid = combinations(vary)
        return grid, factor_pairs(grid)
    named = read_arms(Path(arms))
    return named, ladder_pairs(named)


def combinations(vary: Sequence[str]) -> list[Arm]:
    """Returns every combination of values as an arm.

    Example:
        >>> [arm.name for arm in combinations(["model.loss=focal,cross_entropy"])]
        ['model.loss=focal', 'model.loss=cross_entropy']

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
                "write it like --vary model.loss=focal,cross_entropy, or use --arms"
            )
        name = name.lstrip("-")
        if name in factors or name in (*OWN, *IMAGES):
            raise UserError(
                f"--vary cannot take {name}: it is given twice, or it changes the images or names a run; leave it out"
            )
        factors[name] = levels
    grid = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    return [Arm(spelled(options), options, options) for options in grid]


def factor_pairs(grid: Sequence[Arm]) -> list[Pair]:
    """Pairs each value of each option with the option's first, at every combination of the other options."""
    pairs = []
    by_options = {frozenset(arm.options.items()): arm for arm in grid}
    for option, first in grid[0].options.items():
        _, *more = dict.fromkeys(arm.options[option] for arm in grid)
        for base in (arm for arm in grid if arm.options[option] == first):
            fixed = {name: value for name, value in base.options.items() if name != option}
            at = f" ({spelled(fixed)})" if fixed else ""
            for value in more:
                other = by_options[frozenset({**base.options, option: value}.items())]
                pairs.append(Pair(f"{option}: {value} − {first}{at}", base, other, (first, value)))
    return pairs


def ladder_pairs(arms: Sequence[Arm]) -> list[Pair]:
    """Pairs each arm with the one before, and then each with the first."""
    chosen = [*itertools.pairwise(arms), *((arms[0], arm) for arm in arms[2:])]
    return [Pair(f"{other.name} − {base.name}", base, other, (base.name, other.name)) for base, other in chosen]


def read_arms(path: Path) -> list[Arm]:
    """Reads arms from a YAML file, a mapping from names to options as they are typed after ``--``.

    An arm is its whole difference from the options that all fits share. One that builds on another takes over its
    options with a merge key: ``<<: *anchor``.

    Raises:
        UserError: The file cannot be read, holds fewer than two arms, or a name or an arm is not as described.
    """
    try:
        top = read_yaml(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check the path after --arms") from error
    if not isinstance(top, yaml.MappingNode) or len(top.value) < 2:
        raise UserError(f"{path} must hold two or more arms, each with a name and its options: write them like {FORM}")
    arms = {_name(name, path): _options(options, name.value, path) for name, options in top.value}
    if alike := look_alike(arms):
        raise UserError(f"arms in {path} have names that look alike ({listed(alike[0])}): rename one")
    return [Arm(name, {"arm": name}, options) for name, options in arms.items()]


def _name(node: yaml.Node, path: Path) -> str:
    if not isinstance(node, yaml.ScalarNode) or UNFIT.search(node.value):
        raise UserError(
            f"the arm {_text(node)!r} in {path} needs a name that a folder can have beside ablation.md, without a dot "
            'in front or any of <>:"/\\|?*: choose another'
        )
    return node.value


def _options(node: yaml.Node, arm: str, path: Path) -> dict[str, str]:
    if isinstance(node, yaml.ScalarNode) and node.tag == NULL:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"the arm {arm} in {path} must hold options by name: write it like {FORM}")
    own = [_text(name).lstrip("-") for name, _ in node.value]
    if twice := [name for place, name in enumerate(own) if name in own[:place]]:
        raise UserError(f"the arm {arm} in {path} has {twice[0]} twice, with and without dashes: leave one out")
    try:
        yaml.SafeLoader("").flatten_mapping(node)
    except yaml.YAMLError as error:
        raise UserError(
            f"the arm {arm} in {path} cannot be merged ({' '.join(str(error).split())}): correct it"
        ) from error
    if wrong := [text for name, _ in node.value if not OPTION.fullmatch(text := _text(name))]:
        raise UserError(
            f"the arm {arm} in {path} has {wrong[0]!r} in the place of an option: write it like {FORM}, with quotation "
            "marks around a value that has commas"
        )
    return {name.value.lstrip("-"): _typed(value) for name, value in node.value}


def _text(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else _typed(node)


def _typed(node: yaml.Node) -> str:
    """Returns a value as it is typed on a command line, on one line."""
    if isinstance(node, yaml.ScalarNode):
        return "null" if node.tag == NULL else node.value
    node.flow_style = True
    return yaml.serialize(node, width=math.inf, allow_unicode=True).strip()


def spelled(options: dict[str, str]) -> str:
    """Returns options as text.

    Example:
        >>> spelled({"model.loss": "focal", "model.dropout": "0"})
        'model.loss=focal, model.dropout=0'
    """
    return ", ".join(f"{name}={value}" for name, value in options.items())
