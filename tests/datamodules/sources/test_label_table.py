import csv
import json

import pytest

from datamodules.files.csv_cells import to_cell
from datamodules.files.errors import UserError
from datamodules.sources.label_table import NO_COLUMN, Columns, LabelRow, read_label_table

PLAIN = "image,label\n1.jpg,cat\n2.jpg,dog\n"


@pytest.fixture
def write(tmp_path):
    """Writes a file of labels from text or bytes."""

    def write(content, name="labels.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def pairs(rows):
    return [(row.image, row.label) for row in rows]


HEADER = ["file_name", "label", "split", "size"]
ROWS = [  # what a spreadsheet, a program and a person write
    ["a/1.jpg", "01", "train", "3"],
    ["2", "1", "Validation", ""],
    ["x, y.png", 'the "big" cat', "dev", "7"],
    ["3.jpg", "one\nline more", "Testing", "9"],
    ["ünï.jpg", " dog", "val", "1"],
]
EXPECTED = [
    LabelRow("a/1.jpg", "01", "train", "", 2),
    LabelRow("2", "1", "val", "", 3),
    LabelRow("x, y.png", 'the "big" cat', "val", "", 4),
    LabelRow("3.jpg", "one\nline more", "test", "", 5),
    LabelRow("ünï.jpg", " dog", "val", "", 7),  # the row before has two lines
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "delimiter"), [("labels.csv", ","), ("Labels.TSV", "\t")])
def test_tables_of_any_writer_say_the_same(tmp_path, name, delimiter, ending, encoding):
    with open(tmp_path / name, "w", newline="", encoding=encoding) as file:
        table = csv.writer(file, delimiter=delimiter, lineterminator=ending)
        table.writerows([HEADER, *ROWS, ["", "", "", ""], [], [" ", "", "", ""]])  # as spreadsheets end
    assert read_label_table(tmp_path / name) == EXPECTED


def test_json_lines_say_the_same_as_a_table(write):
    rows = [{**dict(zip(HEADER, row, strict=True)), "boxes": [[1.5, None]]} for row in ROWS]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert read_label_table(write(text, "labels.jsonl")) == [
        row._replace(line=line) for line, row in enumerate(EXPECTED, start=1)
    ]
    numbers = '{"id": 17, "class": 3}\n\n{"class": -0, "id": "18"}\n{"id": 19, "class": 123456789012345678901234567890}'
    assert pairs(read_label_table(write(numbers, "labels.jsonl"))) == [
        ("17", "3"), ("18", "-0"), ("19", "123456789012345678901234567890"),
    ]  # fmt: skip


@pytest.mark.parametrize("image", ["file_name", "image", "image_path", "image_name", "path", "id", "Id", "Image"])
@pytest.mark.parametrize("label", ["label", "class", "target", "Label"])
def test_columns_are_found_by_convention(write, image, label):
    path = write(f"{label},index,{image}\ncat,7,1.jpg\ndog,8,2.jpg\n")
    assert pairs(read_label_table(path)) == [("1.jpg", "cat"), ("2.jpg", "dog")]


def test_columns_are_found_by_their_names(write):
    path = write("id,label,kind,fold,split,who\n1,2,cat,train,9,a\n2,3,dog,test,9,b\n")
    columns = Columns("id", "kind", "fold", "who")
    assert read_label_table(path, columns) == [
        LabelRow("1", "cat", "train", "a", 2),
        LabelRow("2", "dog", "test", "b", 3),
    ]
    assert {row.split for row in read_label_table(path, Columns(split=NO_COLUMN))} == {
        ""
    }  # a column that does not count
    no_group = write("id,label,split\n1,cat,test\n2,dog,test\n")
    assert {row.group for row in read_label_table(no_group, Columns(group="who"))} == {""}  # none of them trains


@pytest.mark.parametrize("labels", [["=1+1", "'=1+1", "caf\udce9", r"caf\xe9", "@home"], ["dog", "dog "]])
def test_labels_that_were_written_as_cells_come_back(tmp_path, labels):
    with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label"], *([f"{i}.jpg", to_cell(x)] for i, x in enumerate(labels))])
    assert [row.label for row in read_label_table(tmp_path / "labels.csv")] == labels


def test_labels_stay_apart_where_reading_cells_as_escaped_would_join_them(write):
    assert [row.label for row in read_label_table(write("id,label\n1,'-a\n2,-a\n"))] == ["'-a", "-a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name its columns in the first line, which is empty"),
        ("image,label\n", "has no rows below the names of its columns"),
        ("1.jpg,cat\n", "no column of images by a known name (file_name, image, image_path, image_name, path, id)"),
        ("image,kind\n1,a\n", "no column of labels by a known name (label, class, target), only image, kind: "
         "name it with --data.label_column"),
        ("image, label\n1, a\n", "remove the blanks after the separators"),
        ("image,id,label\n1,2,a\n", "has 2 columns that may hold its images, image, id: name the one that does with "
         "--data.image_column"),
        ("image,label,Label\n1,2,a\n", "has 2 columns that may hold its labels, label, Label"),
        ("image,label,split,Split\n1,2,a,b\n", "with --data.split_column"),
        ("image;label\n1.jpg;cat\n", "separates its columns by semicolons: separate them by commas"),
        ("image\tlabel\n1.jpg\tcat\n", "separates its columns by tabs: separate them by commas, or call it .tsv"),
        ("image,label\n1.jpg,cat\n2.jpg\n", "line 3 of "),
        ("image,label\n1.jpg,cat\n2.jpg\n", "has 1 cells, but the first line names 2 columns"),
        ("image,label\n1.jpg,a cat, a dog\n", "has 3 cells, but the first line names 2 columns"),
        ('image,label\n1.jpg,cat\n2.jpg,"dog\n3.jpg,cat\n', "begins in line 3 has a broken quote"),
        ('image,label\n1.jpg,cat\n2.jpg,"dog"gy\n', "begins in line 3 has a broken quote"),
        ("image,label\n1.jpg,cat\n2.jpg,\n,dog\n ,\t\n", "has an empty cell in line 3 (label), 4 (image)"),
        ("image,label,split\n1.jpg,cat,\n", "must have image and label and split in each row, but has an empty cell in "
         "line 2 (split)"),
        ("image,label,split\n1,a,train\n2,b,extra\n3,b,extra\n4,a,trainer\n", "must have train, val or test as split, "
         "but has 'extra' (line 3), 'trainer' (line 5)"),
        ("image,label\n1,cat\n2,dog\n3,cat|dog\n", "several labels in one, 'cat|dog' (line 4), but this project "
         "is single-label"),
        ("image,label\n1,cat\n2,dog\n3,dog; cat\n", "several labels in one"),
        ('image,label\n1,cat\n2,dog\n3,"cat,dog"\n', "several labels in one"),
        ("image,label\n1,['cat']\n", "several labels in one"),
        ("image,label\n1,a/b\n", "a name that a class's folder could have, but "),
        ("image,label\n1,..\n", "'..' (line 2): write it without a slash, and without a dot in front"),
        ("image,label\n1,a\0b\n", "write it without"),
        ("image,label\n1,a\n".encode("utf-16"), "must be in UTF-8, but it is in UTF-16"),
        ("image,label\n1,a\n".encode("utf-16-le"), "must be in UTF-8, but it looks like UTF-16"),
        ("image,label\n1,a\n2,café\n".encode("latin-1"), "must be in UTF-8, but line 3 is not: save it again as UTF-8"),
    ],
)  # fmt: skip
def test_what_is_not_clear_in_a_table_is_one_sentence(write, text, message):
    with pytest.raises(UserError) as caught:
        read_label_table(write(text))
    assert message in str(caught.value)
    assert "labels.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a JSON object in each line, but it is empty"),
        ('{"id": 1, "label": "a"}\n{"id": 2}\n', "has an empty cell in line 2 (label)"),
        ('{"id": 1, "label": 1.0}', "line 1 of "),
        ('{"id": 1, "label": 1.0}', "must have text or an integer as label, got 1.0"),
        ('{"id": 1, "label": true}', "got true"),
        ('{"id": 1, "label": null}', "got null"),
        ('{"id": 1, "label": {"name": "cat"}}', 'got {"name": "cat"}'),
        ('{"id": 1, "label": NaN}', "got NaN"),
        ('{"id": 1, "label": ["cat", "dog"]}', 'has a list as label, ["cat", "dog"], but this project is single-label'),
        ('{"id": 1, "label": "a", "label": "b"}', "line 1 of "),
        ('{"id": 1, "label": "a", "label": "b"}', "a key comes twice"),
        ('{"id": 1, "label": "a"}\n[1, 2]\n', 'must be a JSON object, got ["1", "2"]'),
        ('{"id": 1, "label": "a"\n', "line 1 of "),
        ('{"id": 1, "label": "a"\n', "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        ('{"id": 1, "label": "\\ud800"}', "a name that a class's folder could have"),
        ('{"id": 1, "label": "a"}\n{"id": 2, "label": "b", "class": "c"}\n', "has 2 columns that may hold its labels"),
        ('{"id": 1, "label": "a"}'.encode("utf-16"), "it is in UTF-16"),
    ],
)
def test_what_is_not_clear_in_json_lines_is_one_sentence(write, text, message):
    with pytest.raises(UserError) as caught:
        read_label_table(write(text, "labels.jsonl"))
    assert message in str(caught.value)
    assert "labels.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            Columns(image="photo"),
            "has no column photo (--data.image_column), its columns are image, label: name one of",
        ),
        (Columns(label="Label"), "has no column Label (--data.label_column)"),  # typed names are exact
        (Columns(split="fold"), "has no column fold (--data.split_column)"),
        (Columns(group="patient"), "has no column patient (--data.group_column)"),
    ],
)
def test_a_named_column_that_is_not_there_is_one_sentence(write, columns, message):
    with pytest.raises(UserError) as caught:
        read_label_table(write(PLAIN), columns)
    assert message in str(caught.value)


def test_files_that_are_no_tables_of_labels_are_refused(write, tmp_path):
    with pytest.raises(UserError, match=r"labels\.xlsx ends in \.xlsx, but .* must end in \.csv, \.tsv, \.jsonl"):
        read_label_table(write(PLAIN, "labels.xlsx"))
    with pytest.raises(UserError, match=r"cannot read the labels in .*absent\.csv \(No such file"):
        read_label_table(tmp_path / "absent.csv")
    with pytest.raises(UserError, match=r"separates its columns by commas: separate them by tabs, or call it \.csv"):
        read_label_table(write(PLAIN, "labels.tsv"))
    with pytest.raises(UserError, match=r"broken quote \(field larger than field limit"):
        read_label_table(write('image,label\n1.jpg,"cat\n' + "2.jpg,dog\n" * 20_000))


def test_names_of_classes_may_have_separators(write):
    """As folders' names may: only what other rows call labels is taken for several."""
    labels = ["sea", "lion", "sea lion", "lion sea", "salt, pepper", "A|B", "cat,", "[a] b"]
    path = write("id,label\n" + "".join(f'{i},"{label}"\n' for i, label in enumerate(labels)))
    assert [row.label for row in read_label_table(path)] == labels
