"""The command line's parser, whose errors are one sentence."""

import re
from typing import Any, NoReturn, Union, get_args, get_origin

from pytorch_lightning.cli import LightningArgumentParser

from datamodules.files.errors import UserError

GROUPS = "data|model|trainer|size_budget|best|prediction|insight"
HELP = "(cbam100 COMMAND --help lists the options)"
IN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "tuple": "two numbers in brackets like [0.5,1.0]",  # no option takes another
    "NoneType": "null",
}


class Parser(LightningArgumentParser):
    """Turns jsonargparse's pages of usage into one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises ``UserError``."""
        raise UserError(one_sentence(message)) from ex


def prefer_whole_numbers(parser: LightningArgumentParser) -> None:
    """Has options that take whole numbers and shares read 1 as a whole number, since 1.0 means something else to them.

    jsonargparse tries the types of a union in their order, and typing hands out ``Optional[Union[int, float]]`` in the
    order of whoever asked for it first: after ``import rich.progress``, with float in front.
    """
    actions: list[Any] = parser._actions
    for action in actions:
        hint = getattr(action, "_typehint", None)
        if get_origin(hint) is Union and {int, float} <= {*get_args(hint)}:
            action._typehint = Union[tuple(sorted(get_args(hint), key=lambda kind: kind is not int))]  # noqa: UP007


def one_sentence(message: str) -> str:
    """Condenses jsonargparse's multi-line message to one sentence.

    >>> one_sentence('''Parser key "data.num_workers": Does not validate against any of the Union subtypes
    ... Errors:
    ...   - Expected a <class 'int'>
    ...   - Expected a <class 'NoneType'>
    ... Given value type: <class 'str'>
    ... Given value: abc''')
    '--data.num_workers must be a whole number or null, got abc (cbam100 COMMAND --help lists the options)'
    """
    text = re.sub(rf"\b(fit|validate|test|predict)\.(?=({GROUPS})\.)", "--", " ".join(message.split()))
    if wrong_class := re.search(r"Problem with given class_path '(.*?)': (.*?)(?= - |:? Given value|$)", text):
        return f"{wrong_class[1]} cannot be used: {wrong_class[2]}: check its name and arguments"
    given = re.search(r"class_path'?[=:] ?'([\w.]+)'", text)
    if given and (reasons := re.findall(r"(?:Errors:|(?<=\w)) - (.*?)(?= - |:? Given value)", text)):
        reason = next((x for x in reasons if not x.startswith(("Expected a", "Not a valid"))), "check its arguments")
        return f"{given[1]} cannot be used: {reason.removesuffix(f' {HELP}')}"
    if inner := re.search(rf'- Parser key "(.*?)": (.*?)( {re.escape(HELP)})? - ', text):
        return f"{inner[1]}: {inner[2]} {HELP}"
    option = re.search(r'Parser key "(?:--)?([\w.]+)": .*(?:Given|Got) value: (.*)', text)
    expected = re.findall(r"Expected an? (?:(?:<class '|(?=tuple with))(\w+)|typing\.Literal\[(.*?)\])", text)
    if option and expected and "Not a valid subclass" not in text:
        choices = [[IN_WORDS.get(kind, kind)] if kind else literals.split(", ") for kind, literals in expected]
        *others, last = dict.fromkeys(word.strip("'") for words in choices for word in words)
        listed = f"{', '.join(others)} or {last}" if others else last
        return f"--{option[1]} must be {listed}, got {option[2]} {HELP}"
    return f"{text} {HELP}"
