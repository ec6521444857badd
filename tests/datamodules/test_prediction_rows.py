import csv

import pytest

from datamodules import prediction_rows
from datamodules.files.errors import UserError
from datamodules.images.find import ImageFile

PATHS = ["t/1.jpg", "t/2.png", "t/10.jpg"]


def template(folder, text):
    path = folder / "template.csv"
    path.write_text(text)
    return path


def images(paths):
    return [ImageFile(path.removeprefix("t/"), path) for path in paths]


def rows_from_template(path, paths):
    return [(name, image.path) for name, image in prediction_rows.rows_from_template(path, images(paths))]


def rows_from_files(paths):
    return [(name, image.path) for name, image in prediction_rows.rows_from_files(images(paths))]


def test_without_a_template_names_are_stems_in_the_files_order():
    assert rows_from_files(PATHS) == [("1", "t/1.jpg"), ("2", "t/2.png"), ("10", "t/10.jpg")]
    assert rows_from_files([]) == []


def test_two_files_of_one_stem_are_refused():
    with pytest.raises(
        UserError, match=r"several images for 1 \(t/a/1.jpg, t/b/1.png\): rename them, or pass a --data"
    ):
        rows_from_files(["t/a/1.jpg", "t/2.jpg", "t/b/1.png"])


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
    with pytest.raises(UserError, match=r"it names 1 \(t/1.jpg, t/1.png\), for which there are several images: "):
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
        ("x,image_name\n1,1\n2\n,10\n", "must have an image_name in each row, but has none in line 3: fill it in"),
        ("image_name\n1 \n2\n10\n", "it spells '1' as '1 ' \\(other blanks\\): correct it"),
        (
            "image_name\n1.jpg\n2.png\n10.jpg \n",
            "it spells '10.jpg' as '10.jpg ' \\(other blanks\\): correct it",
        ),
        (
            "image_name;pred_label\n1;0\n",
            "has no column image_name, only image_name;pred_label: separate columns by com",
        ),
        ("name\n1\n2\n10\n", "has no column image_name, only name: rename"),
        ("", "has no column image_name, only an empty line: rename"),
    ],
)
def test_a_template_that_does_not_match_is_refused(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        rows_from_template(template(tmp_path, text), PATHS)


def test_a_template_names_files_in_folders_by_their_place(tmp_path):
    paths = ["t/a/1.jpg", "t/b/1.jpg", "t/1.jpg", "t/b/2.png"]
    text = "image_name\na/1.jpg\nb/1\n1.jpg\n2\n"
    names, expected = ["a/1.jpg", "b/1", "1.jpg", "2"], [paths[i] for i in (0, 1, 2, 3)]
    assert rows_from_template(template(tmp_path, text), paths) == list(zip(names, expected, strict=True))
    with pytest.raises(
        UserError, match=r"it names 1 \(t/a/1.jpg, t/b/1.jpg\), for which .* and does not name b/2.png:"
    ):
        rows_from_template(template(tmp_path, "image_name\n1\n"), [paths[0], paths[1], paths[3]])
    with pytest.raises(UserError, match=r"with or without folder and suffix, has b/2.png more than once"):
        rows_from_template(template(tmp_path, "image_name\na/1\nb/1\n1.jpg\n2\nb/2\n"), paths)


def test_rows_that_a_spreadsheet_adds_do_not_count(tmp_path):
    rows = rows_from_template(template(tmp_path, "image_name,x,\r\n1,0,\r\n2,,\r\n10,0,\r\n,,\r\n , ,\r\n\r\n"), PATHS)
    assert rows == [("1", "t/1.jpg"), ("2", "t/2.png"), ("10", "t/10.jpg")]


COMPOSED, DECOMPOSED = "Caf\u00e9", "Cafe\u0301"


@pytest.mark.parametrize(("there", "here"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_template_may_be_in_another_unicode_form(there, here, tmp_path):
    """A Mac's archives are decomposed, what people type is composed."""
    rows = rows_from_template(
        template(tmp_path, f"image_name\n{here}/{here}.jpg\nx\n"), [f"t/{there}/{there}.jpg", "t/x.jpg"]
    )
    assert rows == [(f"{here}/{here}.jpg", f"t/{there}/{there}.jpg"), ("x", "t/x.jpg")]


def test_files_that_differ_by_unicode_form_only_are_told_apart(tmp_path):
    paths = [f"t/{COMPOSED}.jpg", f"t/{DECOMPOSED}.jpg"]
    rows = rows_from_template(template(tmp_path, f"image_name\n{DECOMPOSED}\n{COMPOSED}\n"), paths)
    assert rows == [(DECOMPOSED, paths[1]), (COMPOSED, paths[0])]
    both = ["t/o\u0323\u0302.jpg", "t/\u1ecd\u0302.jpg"]  # of the same third form
    with pytest.raises(UserError, match="another Unicode form, NFC or NFD"):
        rows_from_template(template(tmp_path, "image_name\n\u1ed9\n"), both)


def test_letters_of_another_alphabet_are_shown(tmp_path):
    expected = r"it spells 'cat' as '\\u0441at' \(characters that look alike or do not show\): correct it"
    with pytest.raises(UserError, match=expected):
        rows_from_template(template(tmp_path, "image_name\n\u0441at\n"), ["t/cat.jpg"])


def test_a_missing_template_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the template .*absent\.csv"):
        rows_from_template(tmp_path / "absent.csv", PATHS)
