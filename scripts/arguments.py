"""Command lines of typed functions: the options are the function's parameters, their help is its docstring."""

import argparse
import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import docstring_parser

from datamodules.files.errors import UserError


class Arguments(argparse.ArgumentParser):
    """Says in one sentence what is wrong with a command, where argparse prints a page.

    Own code, because jsonargparse has no ``parse_known_args``, which ``ablate`` needs, and no option to repeat.
    """

    def error(self, message: str) -> NoReturn:
        """Raises ``UserError``."""
        raise UserError(f"{message}: {self.prog} --help lists the options")

    def add_parameters(
        self,
        function: Callable[..., Any],
        *,
        spelled: Mapping[str, str] | None = None,
        metavars: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        """Adds an option for each parameter of a function, whose first sentence describes the command.

        A parameter without a default is required; one that takes a sequence may be repeated, or takes one value or
        more where it is positional.

        Args:
            function: Its types and defaults are those of the options.
            spelled: Names on the command line where they are not ``--<parameter>``; without dashes, it is positional.
            metavars: What the help calls the values.
            without: Parameters that get no option.
        """
        hints = get_type_hints(function)
        about = docstring_parser.parse(function.__doc__ or "")
        helps = {parameter.arg_name: parameter.description or "" for parameter in about.params}
        self.description = about.short_description
        for name, parameter in inspect.signature(function).parameters.items():
            if name in without:
                continue
            flag = (spelled or {}).get(name, f"--{name}")
            positional, required = not flag.startswith("-"), parameter.default is parameter.empty
            options: dict[str, Any] = {"help": helps[name].replace("%", "%%").replace("``", "")}
            if metavar := (metavars or {}).get(name):
                options["metavar"] = metavar
            if not positional:
                options |= {"dest": name, "required": required}
            if not required:  # argparse appends to a copy of it
                options["default"] = list(parameter.default) if parameter.default == () else parameter.default
            self.add_argument(flag, **options, **_values(hints[name], positional))


def _values(hint: Any, positional: bool) -> dict[str, Any]:
    """What argparse has to know of a type; of several, the last."""
    if get_origin(hint) in (types.UnionType, Union):
        *_, hint = (choice for choice in get_args(hint) if choice is not type(None))
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is Sequence:
        (item,) = get_args(hint)
        return _values(item, positional) | ({"nargs": "+"} if positional else {"action": "append"})
    return {"type": hint}
