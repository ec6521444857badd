import csv

import numpy as np
import pytest

from callbacks.predictions.out_of_fold import OutOfFold, read_out_of_fold, write_out_of_fold
from datamodules.class_index import ClassIndex
from datamodules.files.errors import UserError
from datamodules.files.own_files import OUT_OF_FOLD, kind_of

HEAD = "image_name,label,fold,p(cat),p(dog)"
GOOD = "cat/1.jpg,cat,0,0.9,0.1"


@pytest.fixture
def read(tmp_path):
    def read(*lines, classes=("cat", "dog"), end="\n"):
        path = tmp_path / "out_of_fold.csv"
        path.write_bytes("".join(line + end for line in lines).encode())
        return read_out_of_fold(path, ClassIndex(classes))

    return read


def test_columns_get_the_order_of_the_classes(read):
    found = read(HEAD, GOOD, "dog/2.jpg,dog,1,,", "dog/3.jpg,dog,1,0.25,0.75", classes=("dog", "cat"))
    assert found.names == ["cat/1.jpg", "dog/2.jpg", "dog/3.jpg"]
    np.testing.assert_array_equal(found.label, [1, 0, 0])
    np.testing.assert_array_equal(found.probability, [[0.1, 0.9], [np.nan, np.nan], [0.75, 0.25]])
    assert found.readable().names == ["cat/1.jpg", "dog/3.jpg"]


def test_what_a_spreadsheet_makes_of_it(read):
    found = read("\ufeff" + HEAD, GOOD, ",,,,", "", end="\r\n")
    assert found.names == ["cat/1.jpg"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "is not a file of probabilities, as its first line is not image_name,label,fold and p(CLASS)"),
        (["image_name,pred_label", "1,cat"], "is not a file of probabilities"),
        (["image_name,label,fold", "1,cat,0"], "is not a file of probabilities"),
        ([HEAD + ",fold"], "is not a file of probabilities"),
        ([HEAD + ",p(cat)"], "has several columns of cat"),
        ([HEAD.replace("dog", "cow")], "the same 2 classes as the data set, but it lacks dog and also has cow"),
        ([HEAD + ",p(cow)"], "but it also has cow"),
        ([HEAD], "has no images"),
        ([HEAD, GOOD, GOOD], "must name each image once, but has cat/1.jpg more than once"),
        ([HEAD, GOOD.replace(",cat", ",cow")], "labels that are none of its classes, cow"),
        ([HEAD, GOOD, "dog/2.jpg,dog,0,0.9"], "line 3 of"),
        ([HEAD, GOOD.replace("0,", "a,", 1)], "must have the number of a fold, got 'a'"),
        ([HEAD, GOOD.replace("0.1", "0.1,")], "must have 5 cells, as its first line, got 6"),
        ([HEAD, GOOD.replace("0.1", "")], "line 2 of"),
        ([HEAD, GOOD.replace("0.1", "x")], "not a number (could not convert string to float: 'x')"),
        ([HEAD, GOOD.replace("0.1", "nan")], "from 0.9 to inf and add up to inf"),
        ([HEAD, GOOD.replace("0.1", "inf")], "from 0.9 to inf and add up to inf"),
        ([HEAD, GOOD.replace("0.1", "-inf")], "from -inf to 0.9 and add up to -inf"),
        ([HEAD, GOOD, "dog/2.jpg,dog,0,1.5,-0.5"], "those in line 3"),
        ([HEAD, GOOD.replace("0.1", "0.2")], "add up to 1.1"),
        ([HEAD, GOOD.replace("0.9", "90").replace("0.1", "10")], "add up to 100"),
        ([HEAD, GOOD + "\0" + 200_000 * "1"], "cannot read"),
    ],
)
def test_another_file_is_refused(lines, sentence, read):
    with pytest.raises(UserError) as caught:
        read(*lines)
    assert sentence in str(caught.value)


def test_a_file_that_is_missing_or_not_text(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*: pass the out_of_fold\.csv that"):
        read_out_of_fold(tmp_path / "none.csv", ClassIndex(["cat", "dog"]))
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="cannot read"):
        read_out_of_fold(tmp_path / "picture.csv", ClassIndex(["cat", "dog"]))


def test_numbers_that_were_rounded_to_9_digits_or_to_16_bits_add_up(read):
    logits = np.random.default_rng(0).normal(0, 3, 1000)
    probability = np.exp(logits) / np.exp(logits).sum()
    classes = [str(i) for i in range(1000)]
    head = "image_name,label,fold," + ",".join(f"p({name})" for name in classes)
    for rounded in (probability, probability.astype(np.float16)):
        read(head, "1/a.jpg,1,0," + ",".join(f"{p:.9g}" for p in rounded), classes=classes)


def test_the_table_holds_any_names_and_leaves_out_what_is_not_known(tmp_path):
    classes = ["=1", "a;b", "ca\udcfft"]
    probability = np.array([[0.1, 0.2, 0.7], [np.nan] * 3], np.float32)
    answers = OutOfFold(["=1/x.jpg", "ca\udcfft/y,z.jpg"], classes, np.array([0, 2]), np.array([1, 0]), probability)
    write_out_of_fold(tmp_path / "out_of_fold.csv", answers)
    with open(tmp_path / "out_of_fold.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image_name", "label", "fold", "p(=1)", "p(a;b)", r"p(ca\xfft)"],
        ["'=1/x.jpg", "'=1", "1", "0.100000001", "0.200000003", "0.699999988"],
        [r"ca\xfft/y,z.jpg", r"ca\xfft", "0", "", "", ""],
    ]
    assert kind_of(tmp_path / "out_of_fold.csv") == OUT_OF_FOLD
    np.testing.assert_array_equal(answers.readable().right, [False])
    again = read_out_of_fold(tmp_path / "out_of_fold.csv", ClassIndex(classes))
    assert again.names == answers.names
    for column in ("label", "fold"):
        np.testing.assert_array_equal(getattr(again, column), getattr(answers, column))
    np.testing.assert_array_equal(again.probability.astype(np.float32), answers.probability)
