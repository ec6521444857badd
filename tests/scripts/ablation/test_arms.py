from pathlib import Path

import pytest

from datamodules.files.errors import UserError
from scripts.ablation.arms import combinations, comparison, factor_pairs, ladder_pairs, read_arms

LADDER = """
reference:
slow trunk: &slow
  model.learning_rate: 2e-4
  --data.augmentation: reference
cosine: &cosine
  <<: *slow
  model.learning_rate: 0.00010
  trainer.max_time: 00:01:00:00
  model.weights: none
everything:
  <<: [*cosine, {model.tta: hflip}]
  trainer.callbacks:
    - class_path: a.B
      init_args: {rates: [1e-3, 0.50], on: yes, text: "1,2"}
  trainer.precision:
  run_note: 'x, "y": z'
"""


def write(text):
    Path("arms.yaml").write_text(text, encoding="utf-8")
    return "arms.yaml"


def test_values_are_those_that_would_be_typed(run_folder):
    """Not what YAML makes of them: it reads 2e-4 as text, and minutes to the base of 60."""
    slow = {"model.learning_rate": "2e-4", "data.augmentation": "reference"}
    cosine = {**slow, "model.learning_rate": "0.00010", "trainer.max_time": "00:01:00:00", "model.weights": "none"}
    entry = '[{class_path: a.B, init_args: {rates: [1e-3, 0.50], on: yes, text: "1,2"}}]'
    rest = {"trainer.callbacks": entry, "trainer.precision": "null", "run_note": 'x, "y": z'}
    arms = read_arms(Path(write(LADDER)))
    assert {arm.name: arm.options for arm in arms} == {
        "reference": {}, "slow trunk": slow, "cosine": cosine, "everything": {**cosine, "model.tta": "hflip", **rest},
    }  # fmt: skip
    assert arms[1].flags == ["--model.learning_rate=2e-4", "--data.augmentation=reference"]
    assert [arm.folder for arm in arms] == [arm.name for arm in arms]


def test_each_arm_is_compared_with_the_one_before_and_with_the_first(run_folder):
    _, pairs = comparison([], write("a:\nb: {model.tta: hflip}\nc: {model.tta: hflip}\nd:\n"))
    assert [pair.name for pair in pairs] == ["b − a", "c − b", "d − c", "c − a", "d − a"]
    assert [pair.name for pair in ladder_pairs(read_arms(Path(write("a:\nb:\n"))))] == ["b − a"]


def test_each_value_is_compared_with_the_first_at_every_combination_of_the_others():
    pairs = factor_pairs(combinations(["x.a=1,2,3", "--x.b=u,v"]))
    assert [pair.name for pair in pairs] == [
        "x.a: 2 − 1 (x.b=u)", "x.a: 3 − 1 (x.b=u)", "x.a: 2 − 1 (x.b=v)", "x.a: 3 − 1 (x.b=v)",
        "x.b: v − u (x.a=1)", "x.b: v − u (x.a=2)", "x.b: v − u (x.a=3)",
    ]  # fmt: skip
    assert [(pair.base.name, pair.other.name) for pair in pairs[1:2]] == [("x.a=1, x.b=u", "x.a=3, x.b=u")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must hold two or more arms"),
        ("only: {model.tta: hflip}", "must hold two or more arms"),
        ("[a, b]", "must hold two or more arms"),
        ("a: {}\na: {model.tta: hflip}", "has 'a' twice"),
        ("a: {}\nb: {model.tta: hflip, model.tta: none}", "has 'model.tta' twice"),
        ("a: {}\nA: {model.tta: hflip}", "names that look alike ('a', 'A')"),
        ("a: {}\nb/c: {model.tta: hflip}", "the arm 'b/c' in arms.yaml needs a name that a folder can have"),
        ("a: {}\n..: {model.tta: hflip}", "the arm '..' in arms.yaml needs a name that a folder can have"),
        ("a: {}\n'b|c': {model.tta: hflip}", "the arm 'b|c' in arms.yaml needs a name that a folder can have"),
        ("a: {}\n.lock: {model.tta: hflip}", "the arm '.lock' in arms.yaml needs a name that a folder can have"),
        ("a: {}\nCON: {}", "the arm 'CON' in arms.yaml needs a name that a folder can have"),
        ("a: {}\nlpt1.old: {}", "the arm 'lpt1.old' in arms.yaml needs a name that a folder can have"),
        ("a: {}\nAblation.md: {}", "the arm 'Ablation.md' in arms.yaml needs a name that a folder can have beside"),
        ('a: {}\n"\\ud800": {}', "the arm '\\ud800' in arms.yaml needs a name that a folder can have"),
        ("a: {}\n? [b, c]\n: {}", "the arm '[b, c]' in arms.yaml needs a name that a folder can have"),
        (
            "a: {}\nb: {--model.tta: hflip, model.tta: none}",
            "has model.tta twice, with and without dashes",
        ),
        ("a: {}\nb: {data.progressive: 16@0.5,32@1}", "b in arms.yaml has '32@1' in the place of an option"),
        ("a: {}\nb: {'': 1}", "the arm b in arms.yaml has '' in the place of an option"),
        ("a: {}\nb: {? [c] : 1}", "the arm b in arms.yaml has '[c]' in the place of an option"),
        ("a: {}\nb: model.tta=hflip", "the arm b in arms.yaml must hold options by name"),
        ("a: {}\nb: {<<: text}", "the arm b in arms.yaml cannot be merged"),
        ("a: {", "is not valid YAML"),
    ],
)
def test_a_file_that_holds_no_arms(text, sentence, run_folder):
    with pytest.raises(UserError) as caught:
        read_arms(Path(write(text)))
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there(run_folder):
    with pytest.raises(UserError, match=r"cannot read nowhere\.yaml \(No such file or directory\): check the path"):
        read_arms(Path("nowhere.yaml"))
