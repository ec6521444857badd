"""A check that the model is within the size budget, before training begins."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from callbacks.processes import fail, gather
from callbacks.trainer_parts import callbacks_of, data_of
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
from lightning_modules.network.rounding import STORED_TYPES, StoredPrecision
from lightning_modules.trained_model import largest_export_bytes


class SizeBudget(Callback):
    """Checks the network and the file that it will be exported to when training is set up, and each file once made.

    The size of a network is the bytes of its parameters and persistent buffers.

    With 16 bits, a fit's validations measure the weights rounded to them, and both files of the best epoch hold these.

    Args:
        limit_mb: Largest allowed size in MB of 10^6 bytes.
        precision: What model.safetensors stores weights in: fp32, for as they are trained, or half the bytes with fp16
            or bf16.

    Raises:
        UserError: ``limit_mb`` is not a positive, finite number, or ``precision`` is another.
    """

    def __init__(self, limit_mb: float = 100.0, precision: StoredPrecision = "fp32") -> None:
        if not (limit_mb > 0 and math.isfinite(limit_mb * BYTES_PER_MB)):
            raise UserError(f"--size_budget.limit_mb must be finite and above 0, got {limit_mb}: 100 is the default")
        if precision not in STORED_TYPES:
            raise UserError(f"--size_budget.precision must be one of {', '.join(STORED_TYPES)}, got {precision}")
        self.limit = round(limit_mb * BYTES_PER_MB)
        self.precision, self.dtype = precision, STORED_TYPES[precision]

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and isinstance(pl_module, ImageClassifier):
            swapping = [type(callback).__name__ for callback in callbacks_of(trainer, WeightAveraging)]
            if swapping and self.dtype:
                raise UserError(
                    f"--size_budget.precision {self.precision} cannot be combined with {listed(swapping)}, which "
                    "replaces the rounded weights in a validation: average with --model.ema_decay instead"
                )
            pl_module.export_dtype = self.dtype
            self.check_network(pl_module, data_of(trainer))
            self._print_sizes(pl_module)

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or not self.dtype or not isinstance(pl_module, ImageClassifier):
            return
        # The first process's weights, as DDP is about to give its batch-norm statistics to the others
        if names := gather(trainer, pl_module.too_large_to_round())[0]:
            way_out = "bf16, which holds larger ones" if self.dtype == torch.float16 else "fp32"
            fail(
                trainer,
                f"{listed(names)} has values too large for --size_budget.precision {self.precision}, in which they "
                f"would be infinite: choose {way_out}",
            )

    def check_network(self, pl_module: ImageClassifier, data: Any) -> None:
        """Raises ``UserError`` if the network or its exported file is over the limit, and names options that would fit.

        The file is larger by its header, which has names and shapes of tensors, classes and metrics; there is none
        with data of another kind.
        """
        size = _export_size(pl_module, data, self.dtype)
        if size > self.limit:
            header = size - model_size_bytes(pl_module.network, self.dtype)
            arguments = (len(pl_module.classes), pl_module.architecture, self.limit - header, self.dtype)
            changes = [*self._fitting_precision(pl_module, data, header), *fitting_changes(*arguments)]
            options = listed([f"{flag} ({format_size(after + header)})" for flag, after in changes], limit=8)
            raise UserError(
                f"{pl_module.hparams['backbone']} with these options and the header of its file takes "
                f"{self._excess(size)}: raise --size_budget.limit_mb{f' or choose one of {options}' if options else ''}"
            )

    def check_file(self, size: int) -> None:
        """Raises ``UserError`` if a file of ``size`` bytes is larger than the limit."""
        if size > self.limit:
            halved = "" if self.dtype else ", --size_budget.precision fp16"
            raise UserError(
                f"the exported file takes {self._excess(size)}: choose a smaller --model.backbone{halved} or raise "
                "--size_budget.limit_mb"
            )

    def _fitting_precision(self, model: ImageClassifier, data: Any, header: int) -> list[tuple[str, int]]:
        """Returns the flag that fits the network by rounding its weights, and their bytes, if there is one."""
        size = _export_size(model, data, torch.float16)
        fits = not self.dtype and size <= self.limit
        return [("--size_budget.precision fp16", size - header)] if fits else []

    def _excess(self, size: int) -> str:
        took, limit = format_size(size), format_size(self.limit)
        exactly = f" by {size - self.limit:,} bytes" if took == limit else ""
        return f"{took}, more than the budget of {limit}{exactly}"

    @rank_zero_only
    def _print_sizes(self, model: ImageClassifier) -> None:
        """Prints the total size, and on a terminal a table of the parts."""
        console = Console(soft_wrap=True)
        if console.is_terminal:
            title = f"{model.hparams['backbone']}, {len(model.classes)} classes"
            table = Table("part", "parameters", "size", title=title)
            for name, part_size in part_sizes(model.network, self.dtype).items():
                count = parameter_count(model.network.get_submodule(name))
                table.add_row(name, f"{count:,}", format_size(part_size))
            console.print(table)
        size, limit = (format_size(x) for x in (model_size_bytes(model.network, self.dtype), self.limit))
        stored = f" in {self.precision}" if self.dtype else ""
        console.print(
            f"model size: {size}{stored} of {limit}, {parameter_count(model.network):,} parameters", highlight=False
        )


def _export_size(model: ImageClassifier, data: Any, dtype: torch.dtype | None) -> int:
    """Returns the bytes of the exported file, or of the network alone where there will be none."""
    if isinstance(data, ImageFolderDataModule):
        return largest_export_bytes(model, data, dtype)
    return model_size_bytes(model.network, dtype)
