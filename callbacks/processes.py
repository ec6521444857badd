"""What all processes of a run do together."""

from typing import Any, NoReturn

import torch.distributed
from pytorch_lightning import Trainer

from datamodules.errors import UserError


def gather(value: Any) -> list[Any]:
    """The values of all processes, on each; a collective operation."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def fail(trainer: Trainer, sentence: str) -> NoReturn:
    """Ends all processes, each of which must call this; the first one says why.

    Raises:
        UserError: On the first process.
        SystemExit: On the others.
    """
    raise UserError(sentence) if trainer.is_global_zero else SystemExit(2)
