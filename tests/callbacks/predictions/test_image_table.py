from types import SimpleNamespace

import numpy as np
import torch

from callbacks.predictions.image_table import Table
from datamodules.sampler import BLANK


def test_rows_are_positions_and_each_image_is_counted():
    table = Table(5)
    table.add(torch.tensor([2, 0]), label=torch.tensor([7, 8]), score=torch.tensor([[0.1, 0.9], [0.3, 0.7]]))
    table.add(torch.tensor([4, BLANK]), label=torch.tensor([9, 6]), score=torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    table.add(torch.tensor([0]), label=torch.tensor([8]), score=torch.tensor([[0.3, 0.7]]))
    columns = table.collect(SimpleNamespace(world_size=1))
    np.testing.assert_array_equal(columns["count"], [1 + 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(columns["label"], [8 + 8, 0, 7, 0, 9])
    np.testing.assert_allclose(columns["score"], [[0.6, 1.4], [0, 0], [0.1, 0.9], [0, 0], [0.5, 0.5]], rtol=1e-6)


def test_the_processes_tables_add_up(monkeypatch):
    def of_another_process(column):  # which had image 1 as ours had image 0, and a blank
        column += torch.stack([torch.zeros_like(column[0]), column[0], torch.ones_like(column[0])])

    monkeypatch.setattr(torch.distributed, "all_reduce", of_another_process)
    with torch.inference_mode():  # as in a validation, whose table a fit may collect long after
        table = Table(2)
        table.add(torch.tensor([0, BLANK]), probability=torch.tensor([0.25, 0.5]))
    columns = table.collect(SimpleNamespace(world_size=2))
    np.testing.assert_array_equal(columns["count"], [1, 1])
    np.testing.assert_array_equal(columns["probability"], [0.25, 0.25])
