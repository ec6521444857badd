import os
from types import SimpleNamespace

import pytest
import torch

from callbacks import PredictionWriter
from callbacks.predictions.writer import _data
from datamodules.files.errors import UserError
from datamodules.sampler import BLANK
from lightning_modules import ImageClassifier


@pytest.fixture
def stage(monkeypatch):
    """A trainer of one process with four rows to predict, and a model."""
    data = SimpleNamespace(
        prediction_names=["d", "c", "b", "a"],
        dataset=lambda split: SimpleNamespace(paths=["d.jpg", "c.jpg", "b.jpg", "a.jpg"]),
    )
    trainer = SimpleNamespace(datamodule=data, is_global_zero=True, world_size=1)
    monkeypatch.setattr("callbacks.predictions.writer._data", lambda trainer: trainer.datamodule)
    return trainer, ImageClassifier(["x", "y"], backbone="resnet18")


@pytest.mark.parametrize(
    ("batches", "wrong"),
    [
        ([[0, 1], [3, BLANK]], "got none for b: predict"),
        ([[0, 1], [2, 3], [1, BLANK]], "got several for c: predict"),
        ([[BLANK, BLANK]], "got none for d, c, b, a: predict"),
    ],
    ids=["missing", "twice", "nothing"],
)
def test_a_row_that_came_never_or_twice_is_named_and_nothing_is_written(batches, wrong, stage, run_folder):
    writer = PredictionWriter()
    writer.on_predict_start(*stage)
    for samples in batches:
        samples = torch.tensor(samples)
        outputs = samples, torch.zeros(len(samples), 2, dtype=torch.long), torch.ones(len(samples), 2)
        writer.on_predict_batch_end(*stage, outputs, None, 0)
    with pytest.raises(UserError, match=wrong):
        writer.on_predict_end(*stage)
    assert os.listdir(run_folder) == []


def test_needs_the_projects_data_module():
    with pytest.raises(TypeError, match="needs an ImageFolderDataModule"):
        _data(SimpleNamespace(datamodule=None))


def test_refuses_another_suffix():
    with pytest.raises(UserError, match=r"--prediction.path must end in \.csv, got out\.zip"):
        PredictionWriter("out.zip")


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_refuses_a_threshold_that_is_no_probability(value):
    with pytest.raises(UserError, match=f"--prediction.min_probability must be between 0 and 1, got {value}: leave"):
        PredictionWriter(min_probability=value)
