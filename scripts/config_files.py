"""Reads YAML files with checks: --config files before jsonargparse reads them, and any other file of options."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from datamodules.files.errors import UserError

KINDS = {"sequence": "list", "scalar": "single value"}
SUBCOMMANDS = ("fit", "validate", "test", "predict")


def require_config_files(words: Sequence[str]) -> None:
    """Checks every file after ``--config`` in the words of a subcommand; a missing one is left to the parser.

    Raises:
        UserError: A file is not UTF-8, not YAML, empty, or its options are in the wrong place.
    """
    for path in _paths(words):
        if path.is_file():
            _require_options(path)


def _paths(words: Sequence[str]) -> Iterator[Path]:
    start = next((place for place, word in enumerate(words) if word in SUBCOMMANDS), len(words))
    for word, following in zip(words[start:], [*words[start + 1 :], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in ("--config", "-c"):
            yield Path(value if equals else following)


def read_yaml(path: Path) -> yaml.Node | None:
    """Returns the top node of a YAML file, or None if the file is empty.

    Raises:
        UserError: The file is not UTF-8, not YAML, or has a key twice.
    """
    try:
        node = yaml.compose(path.read_bytes().decode())
        repeated = _repeated_key(node)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(
            f"{path} is not UTF-8 text (byte {byte:#04x} at position {error.start}): save it as UTF-8"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML ({' '.join(str(error).split())}): correct it") from error
    if repeated:
        raise UserError(f"{path} has '{repeated}' twice, of which the first would be lost: join them")
    return node


def _require_options(path: Path) -> None:
    options = read_yaml(path)
    if options is None:
        raise UserError(f"{path} holds no options: write some, such as 'data: {{batch_size: 32}}', or leave it out")
    if not isinstance(options, yaml.MappingNode):
        raise UserError(
            f"{path} must hold options by name, such as 'data: {{batch_size: 32}}', got a {KINDS[options.id]}"
        )
    names = [key.value for key, _ in options.value]
    if command := next((name for name in SUBCOMMANDS if name in names), None):
        raise UserError(f"{path} has its options below '{command}:': move them up, as in configs/default.yaml")


def _repeated_key(node: yaml.Node | None) -> str | None:
    """Returns a key that stands twice in one mapping, of which YAML would keep the last."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        children = [value for _, value in node.value]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
    elif isinstance(node, yaml.SequenceNode):
        twice, children = None, node.value
    else:
        return None
    return twice or next(filter(None, map(_repeated_key, children)), None)
