"""Collective operations of all processes of a run."""

from typing import Any, NoReturn

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from datamodules.files.errors import UserError

GPU_BATCHES_BETWEEN_AGREEMENTS = 8  # each waits for the GPU; on the CPU it is almost free


def agreement_is_due(trainer: Trainer, batch_idx: int) -> bool:
    """Returns whether processes exchange state after this batch; the answer is the same on all of them."""
    every = 1 if trainer.strategy.root_device.type == "cpu" else GPU_BATCHES_BETWEEN_AGREEMENTS
    return (batch_idx + 1) % every == 0


def agree(trainer: Trainer, value: int) -> int:
    """Returns the largest value of all processes, on each of them; a collective operation."""
    if trainer.world_size == 1:
        return value
    tensor = torch.tensor(value, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return int(tensor)


def add_up(trainer: Trainer, tensor: Tensor) -> Tensor:
    """Replaces the tensor of each process, in place, by the sum over all processes; a collective operation."""
    if trainer.world_size > 1:
        torch.distributed.all_reduce(tensor)
    return tensor


def gather(trainer: Trainer, value: Any) -> list[Any]:
    """Returns the values of all processes in the order of their ranks, on each of them; a collective operation."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def fail(trainer: Trainer, sentence: str) -> NoReturn:
    """Ends all processes, each of which must call this.

    Raises:
        UserError: On the first process, with the sentence.
        SystemExit: On the others.
    """
    raise UserError(sentence) if trainer.is_global_zero else end_beside(trainer, 2)


def end_beside(trainer: Trainer, code: int) -> SystemExit:
    """Returns the exception that ends this process with ``code`` together with all others.

    Processes started by Lightning end with 0 instead: it would kill the first one within seconds of another's error,
    before that has said why.
    """
    return SystemExit(code if trainer.local_rank == 0 else 0)
