import csv

import pytest

from datamodules.files.errors import UserError
from datamodules.prediction_rows import rows_from_files, rows_from_template

PATHS = ["t/1.jpg", "t/2.png", "t/10.jpg"]


def template(folder, text):
    path = folder / "template.csv"
    path.write_text(text)
    return path


def test_without_a_template_names_are_stems_in_the_files_order():
    assert rows_from_files(PATHS) == [("1", "t/1.jpg"), ("2", "t/2.png"), ("10", "t/10.jpg")]
    assert rows_from_files([]) == []


def test_two_files_of_one_stem_are_refused():
    with pytest.raises(UserError, match="has 1 more than once"):
        rows_from_files(["t/1.jpg", "t/1.png"])


@pytest.mark.parametrize("text", ["image_name,pred_label\n10,0\n1,0\n2,0\n", "x,image_name\r\n,10\r\n,1\r\n,2\r\n"])
def test_a_template_gives_the_order(text, tmp_path):
    rows = rows_from_template(template(tmp_path, text), PATHS)
    assert rows == [("10", "t/10.jpg"), ("1", "t/1.jpg"), ("2", "t/2.png")]


def test_a_template_may_name_the_suffix_and_its_spelling_stays(tmp_path):
    rows = rows_from_template(template(tmp_path, "\ufeffimage_name\n2.png\n1\n10.jpg\n"), PATHS)
    assert rows == [("2.png", "t/2.png"), ("1", "t/1.jpg"), ("10.jpg", "t/10.jpg")]


def test_a_template_with_suffixes_tells_files_of_one_stem_apart(tmp_path):
    rows = rows_from_template(template(tmp_path, "image_name\n1.png\n1.jpg\n"), ["t/1.jpg", "t/1.png"])
    assert rows == [("1.png", "t/1.png"), ("1.jpg", "t/1.jpg")]
    with pytest.raises(UserError, match="names 1, for which there is no image"):
        rows_from_template(template(tmp_path, "image_name\n1\n1.jpg\n"), ["t/1.jpg", "t/1.png"])


def test_the_rows_of_files_are_a_template_for_them(tmp_path):
    paths = ["t/=1.jpg", "t/'=1.jpg", "t/caf\udce9.jpg", r"t/caf\xe9.jpg", "t/a,b.jpg"]
    rows = rows_from_files(paths)
    with open(tmp_path / "template.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image_name"], *([name] for name, _ in rows)])
    assert rows_from_template(tmp_path / "template.csv", paths) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_name\n1\n2\n10\n11\n", "names 11, for which there is no image"),
        ("image_name\n1\n2\n", "does not name 10.jpg"),
        ("image_name\n1\n2\n3\n", "names 3, for which there is no image and does not name 10.jpg"),
        ("image_name\n1\n2\n10\n2\n", "has 2 more than once"),
        ("image_name\n1\n1.jpg\n2\n10\n", "has 1.jpg more than once"),
        ("x,image_name\n1,1\n2\n,10\n", "for which there is no image"),
        ("image_name\n1 \n2\n10\n", "it spells '1' as '1 ' \\(which look the same\\): correct it"),
        (
            "image_name\n1.jpg\n2.png\n10.jpg \n",
            "it spells '10.jpg' as '10.jpg ' \\(which look the same\\): correct it",
        ),
        ("name\n1\n2\n10\n", "has no column image_name, only name: rename"),
        ("", "has no column image_name, only an empty line: rename"),
    ],
)
def test_a_template_that_does_not_match_is_refused(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        rows_from_template(template(tmp_path, text), PATHS)


def test_a_template_in_another_unicode_form_is_shown_by_what_differs(tmp_path):
    with pytest.raises(UserError, match=r"it spells 'Cafe\\u0301' as 'Caf\\xe9' \(which look the same\): correct it"):
        rows_from_template(template(tmp_path, "image_name\nCaf\u00e9\n"), ["t/Cafe\u0301.jpg"])


def test_a_missing_template_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the template .*absent\.csv"):
        rows_from_template(tmp_path / "absent.csv", PATHS)
