"""Command lines made from typed functions: options from the parameters, help texts from the docstring."""

import argparse
import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import docstring_parser
from typing_extensions import override

from datamodules.files.errors import UserError


class Arguments(argparse.ArgumentParser):
    """Argument parser that raises ``UserError`` with one sentence where argparse prints its usage.

    jsonargparse has no ``parse_known_args``, which ``ablate`` needs, and no options that can be repeated.
    """

    @override
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help lists the options)")

    def add_parameters(
        self,
        function: Callable[..., Any],
        *,
        spelled: Mapping[str, str] | None = None,
        metavars: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        """Adds an option for each parameter of a function, and the first sentence of its docstring as description.

        A parameter without a default becomes a required option. An option that takes a sequence may be repeated; a
        positional argument that takes one accepts several values.

        Args:
            function: Function whose types, defaults and docstring are used.
            spelled: Names on the command line other than ``--<parameter>``; one without dashes is positional.
            metavars: Placeholders for the values in the help, by parameter.
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
            if parameter.default not in (parameter.empty, None, ()):
                options["help"] += f" Default: {parameter.default}."
            if metavar := (metavars or {}).get(name):
                options["metavar"] = metavar
            if not positional:
                options |= {"dest": name, "required": required}
            if not required:  # argparse appends to a copy
                options["default"] = list(parameter.default) if parameter.default == () else parameter.default
            self.add_argument(flag, **options, **_values(hints[name], positional))


def _values(hint: Any, positional: bool) -> dict[str, Any]:
    """Returns argparse's options for a type; for a union, of its last member."""
    if get_origin(hint) in (types.UnionType, Union):
        *_, hint = (choice for choice in get_args(hint) if choice is not type(None))
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is Sequence:
        (item,) = get_args(hint)
        return _values(item, positional) | ({"nargs": "+"} if positional else {"action": "append"})
    return {"type": hint}
