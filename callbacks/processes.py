"""What all processes of a run do together."""

from typing import Any, NoReturn

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from datamodules.files.errors import UserError

GPU_BATCHES_BETWEEN_AGREEMENTS = 8  # an agreement waits for the GPU; on the CPU it costs next to nothing


def agreement_is_due(trainer: Trainer, batch_idx: int) -> bool:
    """Whether processes compare notes after this batch; all of them answer alike."""
    every = 1 if trainer.strategy.root_device.type == "cpu" else GPU_BATCHES_BETWEEN_AGREEMENTS
    return (batch_idx + 1) % every == 0


def agree(trainer: Trainer, value: int) -> int:
    """The largest value of all processes, on each; a collective operation."""
    if trainer.world_size == 1:
        return value
    tensor = torch.tensor(value, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return int(tensor)


def add_up(trainer: Trainer, tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, on each, in the place of its own; a collective operation."""
    if trainer.world_size > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def gather(trainer: Trainer, value: Any) -> list[Any]:
    """The values of all processes, on each; a collective operation."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def fail(trainer: Trainer, sentence: str) -> NoReturn:
    """Ends all processes, each of which must call this; the first one says why.

    Raises:
        UserError: On the first process.
        SystemExit: On the others.
    """
    raise UserError(sentence) if trainer.is_global_zero else end_beside(trainer, 2)


def end_beside(trainer: Trainer, code: int) -> SystemExit:
    """What ends a process with ``code`` together with all others.

    Those that Lightning has started on a machine end with 0 instead: it kills the first one within seconds when another
    ends with an error, and the first has still to say why.
    """
    return SystemExit(code if trainer.local_rank == 0 else 0)
