import pytest

from datamodules import ImageFolderDataModule
from datamodules.files.errors import UserError


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"folds": 1}, "--data.folds must be 2 or more, or 0 for none, got 1"),
        ({"folds": -2}, "--data.folds must be 2 or more, or 0 for none, got -2"),
        ({"fold": 2}, "--data.fold 2 needs --data.folds"),
        ({"folds": 5, "fold": 5}, "--data.fold must be from 0 to 4 with --data.folds 5, got 5"),
        ({"folds": 5, "fold": -1}, "--data.fold must be from 0 to 4 with --data.folds 5, got -1"),
        ({"folds": 5, "val_fraction": 0.2}, "--data.val_fraction 0.2 has no effect with --data.folds 5"),
        ({"fraction": 0.0}, "--data.fraction must be above 0 and at most 1, got 0.0"),
        ({"fraction": 1.5}, "--data.fraction must be above 0 and at most 1, got 1.5"),
        ({"group_column": "cow", "group_pattern": "x"}, "--data.group_column cow and --data.group_pattern x both say"),
        ({"group_pattern": "(x"}, r"--data.group_pattern \(x is not a regular expression of Python \(missing \), unt"),
    ],
)
def test_how_images_are_divided(options, sentence, data_root):
    with pytest.raises(UserError, match=sentence):
        ImageFolderDataModule(str(data_root), **options)
