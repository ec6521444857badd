import csv
import os
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from callbacks.predictions.prediction_csv import Predictions, write_predictions
from datamodules.files.csv_cells import from_cell, to_cell

name = st.binary(min_size=1, max_size=30).map(os.fsdecode) | st.text(
    st.sampled_from("=+-@\t\r\n\"',;\\x5cf9" + "\udcff"), min_size=1
)


@pytest.mark.parametrize(
    ("file_name", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-abc", "'-abc"),
        ("\tx", "'\tx"),
        ("'=1", "''=1"),
        ("'quoted'", "'quoted'"),
        ("caf\udce9", r"caf\xe9"),  # Latin-1 on a UTF-8 disk
        (r"caf\xe9", r"caf\x5cxe9"),
        (r"C:\x", r"C:\x"),
    ],
)
def test_spelling(file_name, cell):
    assert to_cell(file_name) == cell
    assert from_cell(cell) == file_name


@given(name)
def test_any_name_comes_back_and_none_begins_as_a_formula(file_name):
    assert from_cell(to_cell(file_name)) == file_name
    assert to_cell(file_name)[0] not in "=+-@\t\r"
    to_cell(file_name).encode()  # is UTF-8


@given(st.text(string.ascii_letters + string.digits + " ._-äß中"))
def test_usual_names_stay_as_they_are(rest):
    assert to_cell(f"a{rest}") == f"a{rest}"


@example(names=["a\rb", "a\nb", 'say "x"', "a,b"])
@given(names=st.lists(name, unique=True, min_size=1, max_size=5))
def test_a_written_file_round_trips_through_pythons_csv(names, tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "prediction.csv"
    labels = list(range(len(names)))
    cells = [to_cell(x) for x in names]
    write_predictions(path, Predictions(cells, cells[::-1], labels, readable=[True] * len(names)))
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["image_name", "pred_label"]
    assert [[from_cell(cell) for cell in row] for row in rows] == [
        list(row) for row in zip(names, reversed(names), strict=True)
    ]
