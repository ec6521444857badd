from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from datamodules.files.errors import UserError
from scripts.arguments import Arguments


def draw(
    paths: Sequence[str | Path],
    name: str,
    *,
    tags: Sequence[str] = (),
    size: int | None = None,
    shape: Literal["round", "square"] = "round",
) -> None:
    """Draws ``paths``.

    Args:
        paths: What to draw.
        name: Its name.
        tags: Words, or 100 % of them.
        size: Side in pixels.
        shape: Outline.
    """


@pytest.fixture
def parser():
    parser = Arguments(prog="draw")
    parser.add_parameters(draw, spelled={"paths": "paths", "size": "--data.size"}, metavars={"name": "NAME"})
    return parser


def test_types_and_defaults_are_those_of_the_parameters(parser):
    assert vars(parser.parse_args(["a", "b", "--name=x"])) == {
        "paths": [Path("a"), Path("b")], "name": "x", "tags": [], "size": None, "shape": "round",
    }  # fmt: skip
    words = ["a", "--name=x", "--tags=1", "--tags=2", "--data.size=3", "--shape=square"]
    options = parser.parse_args(words)
    assert (options.tags, options.size, options.shape) == (["1", "2"], 3, "square")
    assert parser.parse_args(words).tags == ["1", "2"]  # the default is not appended to


def test_the_help_is_the_docstring(parser):
    text = parser.format_help()
    assert "Draws ``paths``." in text
    assert "Words, or 100 % of them." in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a"], "the following arguments are required: --name \\(draw --help lists the options"),
        (["--name=x"], "the following arguments are required: paths"),
        (["a", "--name=x", "--data.size=b"], "argument --data.size: invalid int value: 'b'"),
        (["a", "--name=x", "--shape=flat"], "invalid choice: 'flat'"),
    ],
)
def test_mistakes_are_one_sentence(parser, words, sentence):
    with pytest.raises(UserError, match=sentence):
        parser.parse_args(words)


def test_a_parameter_can_be_left_out():
    parser = Arguments(prog="draw")
    parser.add_parameters(draw, without=("paths", "tags", "size", "shape"))
    assert vars(parser.parse_args(["--name=x"])) == {"name": "x"}
