"""Comparisons of tables written by hand, with what differs counted by hand."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from datamodules.files.errors import UserError
from scripts.compare import compare
from scripts.main import main

A = {"1": "cat", "2": "cat", "3": "dog", "10": "ant", "11": "cat", "12": "dog"}
B = A | {"1": "dog", "2": "dog", "10": "cat"}
TRUTH = {"1": "cat", "2": "dog", "3": "dog", "10": "ant", "11": "cow", "12": "dog"}
# A is right about 1, 3, 10 and 12; B about 2, 3 and 12.


def write(name, labels, column="pred_label", row="{},{}", end="\n"):
    lines = [f"image_name,{column}", *(row.format(*pair) for pair in labels.items())]
    Path(name).write_text(end.join([*lines, ""]), newline="")
    return name


def backwards(labels):
    return dict(reversed(labels.items()))


def counts(comparison):
    return [(pair["a"], pair["b"], pair["images"]) for pair in comparison.moved]


@pytest.fixture(autouse=True)
def files(run_folder):
    write("A.csv", A)
    write("B.csv", backwards(B))


def test_rows_that_differ_and_pairs_of_classes_most_frequent_first():
    found = compare("A.csv", "B.csv")
    assert (found.images, found.agreement) == (6, 3 / 6)
    assert counts(found) == [("cat", "dog", 2), ("ant", "cat", 1)]
    assert found.differing == [
        {"image_name": "1", "a": "cat", "b": "dog"},
        {"image_name": "2", "a": "cat", "b": "dog"},
        {"image_name": "10", "a": "ant", "b": "cat"},
    ]
    assert found.correctness is None
    assert compare("B.csv", "B.csv").agreement == 1


def test_the_truth_tells_which_is_right():
    right = compare("A.csv", "B.csv", truth=write("T.csv", TRUTH, "label")).correctness
    assert (right.accuracy_a, right.accuracy_b) == (4 / 6, 3 / 6)
    assert (right.only_a, right.only_b) == (2, 1)
    # Three tosses, of which at most one, or at least two, are heads: every outcome.
    assert right.p_value == 1
    assert right.never_predicted == ["cow"]


def test_mcnemar_is_exact():
    names = list(map(str, range(12)))
    write("A.csv", dict.fromkeys(names, "cat"))
    write("B.csv", {name: "cat" if name in ("0", "1") else "dog" for name in names})
    write("T.csv", {name: "dog" if name == "11" else "cat" for name in names}, "label")
    right = compare("A.csv", "B.csv", truth="T.csv").correctness
    assert (right.only_a, right.only_b) == (9, 1)
    assert right.p_value == pytest.approx(2 * (math.comb(10, 0) + math.comb(10, 1)) / 2**10, rel=1e-12)


def folder_of_images():
    for name, label in TRUTH.items():
        Path("val", label).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(Path("val", label, f"{name}.png"))
    return "val"


@pytest.mark.parametrize(
    "make",
    [
        folder_of_images,
        lambda: write("T.csv", {f"{name}.png": label for name, label in TRUTH.items()}, "label"),
        lambda: write("T.csv", backwards(TRUTH), "pred_label"),
        lambda: write("T.csv", TRUTH, "usage,label", "{},public,{}", end="\r\n"),
        lambda: write("T.csv", TRUTH, "pred_label,label", "{},0,{}"),
    ],
    ids=["folder", "suffixes", "as a prediction", "CRLF and other columns", "label before pred_label"],
)
def test_the_truth_in_any_form(make):
    expected = compare("A.csv", "B.csv", truth=write("plain.csv", TRUTH, "label"))
    assert compare("A.csv", "B.csv", truth=make()) == expected


def test_names_may_be_fuller_in_either_file():
    write("fuller.csv", {f"x/{name}.jpg": label for name, label in B.items()})
    assert counts(compare("A.csv", "fuller.csv")) == counts(compare("A.csv", "B.csv"))
    assert compare("fuller.csv", "A.csv").differing[0] == {"image_name": "x/1.jpg", "a": "dog", "b": "cat"}
    write("C.csv", {"a.1": "cat", "a.2": "dog"})
    assert compare("C.csv", "C.csv").agreement == 1
    with pytest.raises(UserError, match=r"lacks a\.1 and also has a: "):
        compare(write("C.csv", {"a.1": "cat"}), write("D.csv", {"a": "cat"}))


def test_cells_as_predict_spells_them_with_and_without_a_template():
    write("A.csv", {"'=1": "'-x", r"caf\xe9": r"\xff"})
    Path("B.csv").write_text("\ufeffimage_name,pred_label\n=1,-x\ncaf\\xe9,\\xff\n\n,\n")
    found = compare("A.csv", "B.csv", json="found.json")
    assert found.agreement == 1
    write("B.csv", {"=1": "y", r"caf\xe9": r"\xff"})
    assert compare("A.csv", "B.csv", json="found.json").differing == [{"image_name": "=1", "a": "-x", "b": "y"}]


def test_the_command_prints_and_writes_it_all(capsys):
    names = [str(name) for name in range(30)]
    write("A.csv", dict.fromkeys(names, "c\tat"))
    write("B.csv", {name: f"d{name}" for name in names})
    main(["compare", "A.csv", "B.csv", f"--truth={write('T.csv', dict.fromkeys(names, 'd1'), 'label')}",
          "--json=found.json"])  # fmt: skip
    output = capsys.readouterr().out
    assert "30 of 30 images differ: agreement 0.0000" in output
    assert "accuracy: A 0.0000, B 0.0333" in output
    assert "only A is right for 0 images, only B for 1: McNemar's exact test, p = 1" in output
    assert r"c\tat" in output
    assert output.count("10 more, all of them with --json FILE") == 2
    found = json.loads(Path("found.json").read_text())
    assert [found[name] for name in ("a", "b", "truth", "images", "agreement")] == ["A.csv", "B.csv", "T.csv", 30, 0]
    assert found["moved"] == [{"a": "c\tat", "b": f"d{name}", "images": 1} for name in names]
    assert found["differing"][3] == {"image_name": "3", "a": "c\tat", "b": "d3", "truth": "d1"}
    assert found["correctness"]["only_b"] == 1
    main(["compare", "A.csv", "A.csv", "--json=found.json"])  # which it may replace
    assert json.loads(Path("found.json").read_text())["correctness"] is None


@pytest.mark.parametrize(
    ("b", "words", "sentence"),
    [
        ("", "", "B.csv has no column image_name, only an empty line: rename a column or pass another file"),
        ("image_name;pred_label\n1;x\n", "", "has no column image_name, only image_name;pred_label: separate columns"),
        ("image_name,label_1\n1,x\n", "", "has no column pred_label, only image_name, label_1: rename"),
        ("image_name,pred_label\n", "", "B.csv has no rows, so there is nothing to compare"),
        ("image_name,pred_label\n1,x\n2,\n", "", "B.csv must have an image_name and pred_label in each row, but has "
         "none in line 3 (pred_label): fill it in"),
        ("image_name,pred_label\n1,x\n1,y\n", "", "must be unique, but B.csv has 1 more than once: remove the rows"),
        ("image_name,pred_label\n1,x\n4,x\n", "", "B.csv must name the 6 images of A.csv, but it lacks 2, 3, 10, 11, "
         "12 and also has 4: correct a file"),
        ("image_name,pred_label\n" + "".join(f"{name} ,cat\n" for name in A), "", "B.csv must spell names as A.csv "
         "does, but it spells '1' as '1 ' (other blanks)"),
        ("image_name,pred_label\n" + "".join(f"{name},cat \n" for name in A), "", "it spells 'cat' as 'cat ' (other"),
        ("image_name,pred_label\n" + "".join(f"{name},{label}{' ' * (name == '3')}\n" for name, label in A.items()), "",
         "it spells 'dog' as 'dog ' (other blanks)"),
        ("image_name,pred_label,pred_label\n1,x,y\n", "", "B.csv has more than one column pred_label: remove"),
        (None, "--truth T.csv", "cannot read the table T.csv ([Errno 2]"),
        (None, "--truth A.csv --json A.csv", "A.csv is an input"),
        (None, "--json notes.json", "notes.json exists and is not an earlier comparison by cbam100"),
        (None, "--json nowhere/found.json", "is not a folder that can be written to"),
        (None, "--truth .", "must hold a subfolder for each of 2 or more classes"),
        (None, "C.csv", "unrecognized arguments: C.csv (cbam100 compare --help lists the options)"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences(b, words, sentence, refusal):
    if b is not None:
        Path("B.csv").write_text(b)
    Path("notes.json").write_text("{}")
    assert sentence in refusal("compare", "A.csv", "B.csv", *words.split())
