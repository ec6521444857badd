"""Columns about the images of a data set, filled by all processes together."""

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from callbacks.processes import add_up
from datamodules.sampler import BLANK


class Table:
    """A table with one row per image, in the order of the data set.

    Lightning leaves what several processes have computed striped over them and never gathers it. Here each process adds
    its images to columns of zeros, on the device, so that no batch waits; the sum of the columns over processes is the
    whole table, with a column ``count`` of how often each image came. No file is shared, so nothing can be left over
    from another run, and machines need no shared disk.

    Args:
        rows: Number of images.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._columns: dict[str, Tensor] = {}  # an extra last row takes the blanks that fill up batches

    def add(self, samples: Tensor, **columns: Tensor) -> None:
        """Adds a batch: positions in the data set ``(batch,)``, and values ``(batch, ...)`` for each column."""
        rows = torch.where(samples == BLANK, self._rows, samples)
        for name, values in {"count": torch.ones_like(samples), **columns}.items():
            if name not in self._columns:
                self._columns[name] = values.new_zeros(self._rows + 1, *values.shape[1:])
            self._columns[name].index_add_(0, rows, values)

    @torch.inference_mode()  # tensors made in this mode may not be changed outside it
    def collect(self, trainer: Trainer) -> dict[str, np.ndarray]:
        """Returns the columns of all processes, ``(rows, ...)``; a collective operation, called once, at the end."""
        return {name: add_up(trainer, column)[:-1].cpu().numpy() for name, column in self._columns.items()}
