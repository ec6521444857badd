"""A check that the model is within the size budget, before training begins."""

import math
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from callbacks.trainer_parts import data_of
from datamodules.files.errors import UserError, listed
from datamodules.image_folder import ImageFolderDataModule
from lightning_modules.classifier import ImageClassifier
from lightning_modules.network.model_size import (
    BYTES_PER_MB,
    fitting_changes,
    format_size,
    model_size_bytes,
    parameter_count,
    part_sizes,
)
from lightning_modules.trained_model import largest_export_bytes


class SizeBudget(Callback):
    """Checks the network and the file that it will be exported to when training is set up, and each file once made.

    The size of a network is the bytes of its parameters and persistent buffers.

    Args:
        limit_mb: Largest allowed size in MB of 10^6 bytes.

    Raises:
        UserError: ``limit_mb`` is not a positive, finite number.
    """

    def __init__(self, limit_mb: float = 100.0) -> None:
        if not (limit_mb > 0 and math.isfinite(limit_mb * BYTES_PER_MB)):
            raise UserError(f"--size_budget.limit_mb must be finite and above 0, got {limit_mb}: 100 is the default")
        self.limit = round(limit_mb * BYTES_PER_MB)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and isinstance(pl_module, ImageClassifier):
            self.check_network(pl_module, data_of(trainer))
            _print_sizes(pl_module, model_size_bytes(pl_module.network), self.limit)

    def check_network(self, pl_module: ImageClassifier, data: Any) -> None:
        """Raises ``UserError`` if the network or its exported file is over the limit, and names options that would fit.

        The file is larger by its header, which has names and shapes of tensors, classes and metrics; there is none
        with data of another kind.
        """
        size = network_size = model_size_bytes(pl_module.network)
        if isinstance(data, ImageFolderDataModule):
            size = largest_export_bytes(pl_module, data)
        if size > self.limit:
            header = size - network_size
            changes = fitting_changes(len(pl_module.classes), pl_module.architecture, self.limit - header)
            options = listed([f"{flag} ({format_size(after + header)})" for flag, after in changes], limit=8)
            raise UserError(
                f"{pl_module.hparams['backbone']} with these options and the header of its file takes "
                f"{self._excess(size)}: raise --size_budget.limit_mb{f' or choose one of {options}' if options else ''}"
            )

    def check_file(self, size: int) -> None:
        """Raises ``UserError`` if a file of ``size`` bytes is larger than the limit."""
        if size > self.limit:
            raise UserError(
                f"the exported file takes {self._excess(size)}: choose a smaller --model.backbone or raise "
                "--size_budget.limit_mb"
            )

    def _excess(self, size: int) -> str:
        took, limit = format_size(size), format_size(self.limit)
        exactly = f" by {size - self.limit:,} bytes" if took == limit else ""
        return f"{took}, more than the budget of {limit}{exactly}"


@rank_zero_only
def _print_sizes(model: ImageClassifier, size: int, limit: int) -> None:
    """Prints the total size, and on a terminal a table of the parts."""
    console = Console(soft_wrap=True)
    if console.is_terminal:
        table = Table("part", "parameters", "size", title=f"{model.hparams['backbone']}, {len(model.classes)} classes")
        for name, part_size in part_sizes(model.network).items():
            count = parameter_count(model.network.get_submodule(name))
            table.add_row(name, f"{count:,}", format_size(part_size))
        console.print(table)
    console.print(
        f"model size: {format_size(size)} of {format_size(limit)}, {parameter_count(model.network):,} parameters",
        highlight=False,
    )
