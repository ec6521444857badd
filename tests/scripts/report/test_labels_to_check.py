import csv
import shutil

import numpy as np
import pytest

from callbacks.run.run_folder import RunFolder
from datamodules import ImageFolderDataModule
from datamodules.files import own_files
from datamodules.files.csv_cells import to_cell
from datamodules.files.errors import UserError
from scripts.report.labels_to_check import check_labels, out_of_fold_of, write_labels_to_check
from tests.conftest import CLASSES

SURE = 0.9


@pytest.fixture
def root(data_root, tmp_path):
    """A data set of which one image has moved from class 3 to class 5."""
    root = tmp_path / "root"
    shutil.copytree(data_root, root)
    first = min((root / "train" / "3").iterdir())
    first.rename(root / "train" / "5" / "moved.jpg")
    return root


@pytest.fixture
def write(root, tmp_path):
    """Writes probabilities by models that are right, and know where the moved image belongs."""

    def write(*, changed=lambda rows: None):
        rows = []
        for path in sorted((root / "train").rglob("*.jpg")):
            label, position = path.parent.name, int(path.parent.name)
            p = np.full(CLASSES, (1 - SURE) / (CLASSES - 1))
            p[3 if path.stem == "moved" else position] = SURE
            rows.append([to_cell(f"{label}/{path.name}"), label, "0", *(f"{x:.9g}" for x in p)])
        changed(rows)
        file = tmp_path / "out_of_fold.csv"
        with open(file, "w", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerows([["image_name", "label", "fold", *(f"p({i})" for i in range(CLASSES))], *rows])
        return file

    return write


def test_a_moved_image_is_found(root, write, tmp_path):
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found = check_labels(write(), ImageFolderDataModule(str(root)))
    first, *others = found.ranking
    low = (1 - SURE) / (CLASSES - 1)
    assert first == (1, "5/moved.jpg", "5", "3", pytest.approx(low), SURE, True)
    assert [image.rank for image in others] == list(range(2, 4 * CLASSES + 1))
    assert found.doubted == 1
    assert found.shown[0] == (1, "5/moved.jpg", "5", "3", f"{low:.2g}", "0.900", "yes")
    assert [row[-1] for row in found.shown[1:]] == ["no"] * 23
    assert (found.accuracy, found.unreadable, found.absent) == (1 - 1 / (4 * CLASSES), 0, 0)
    assert found.pictures.startswith(b"\x89PNG")

    table = tmp_path / "labels_to_check.csv"
    write_labels_to_check(table, found)
    first, second, *others = table.read_text().splitlines()
    assert first == "rank,image_name,label,suggested,p_label,p_suggested,doubted"
    assert second == f"1,5/moved.jpg,5,3,{low:.9g},0.9,1"
    assert [line.split(",")[-1] for line in others] == ["0"] * (4 * CLASSES - 1)
    write_labels_to_check(table, found)  # again, over its own
    assert own_files.kind_of(table) == own_files.LABELS_TO_CHECK
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_images_without_probabilities_and_those_not_named_are_counted(root, write):
    def change(rows):
        rows[0][3:] = [""] * CLASSES
        rows[7][3:] = [""] * CLASSES
        del rows[-3:]

    found = check_labels(write(changed=change), ImageFolderDataModule(str(root)))
    assert (found.unreadable, found.absent, len(found.ranking)) == (2, 3, 4 * CLASSES - 5)


@pytest.mark.parametrize(
    ("row", "cells", "sentence"),
    [
        (0, ["0/gone.jpg"], r"labels that .*train does not have, 0/gone\.jpg \(0\): pass"),
        (0, ["5/moved.jpg"], "must name each image once"),
        (-1, [None, "2"], r"does not have, 9/.*\.jpg \(2\)"),
    ],
)
def test_other_images_are_refused(row, cells, sentence, root, write):
    def change(rows):
        for place, cell in enumerate(cells):
            rows[row][place] = cell or rows[row][place]

    with pytest.raises(UserError, match=sentence):
        check_labels(write(changed=change), ImageFolderDataModule(str(root)))


def test_a_file_without_any_probability_is_refused(root, write):
    def change(rows):
        for row in rows:
            row[3:] = [""] * CLASSES

    with pytest.raises(UserError, match="has no probabilities"):
        check_labels(write(changed=change), ImageFolderDataModule(str(root)))


def test_the_file_of_the_runs_own_ablation_is_found(tmp_path, monkeypatch):
    run = tmp_path / "arm" / "fold_0" / "version_0"
    run.mkdir(parents=True)
    assert out_of_fold_of(RunFolder(run)) is None
    (tmp_path / "arm" / "out_of_fold.csv").touch()
    assert out_of_fold_of(RunFolder(run)) == tmp_path / "arm" / "out_of_fold.csv"
    monkeypatch.chdir(run)
    assert out_of_fold_of(RunFolder(run.relative_to(run))) == tmp_path / "arm" / "out_of_fold.csv"
    other = tmp_path / "arm" / "final" / "version_0"  # which the ablation did not make
    other.mkdir(parents=True)
    assert out_of_fold_of(RunFolder(other)) is None


def test_a_picture_that_cannot_be_read_any_more_is_blank(root, write):
    file = write()
    (root / "train" / "5" / "moved.jpg").write_bytes(b"damaged")
    found = check_labels(file, ImageFolderDataModule(str(root)))
    assert found.ranking[0].image_name == "5/moved.jpg"
    assert found.pictures.startswith(b"\x89PNG")
