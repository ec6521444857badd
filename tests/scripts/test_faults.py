"""A user's and a machine's faults are sentences, and bugs are not."""

import errno
import os
from pathlib import Path

import pytest
import torch

from datamodules.files.errors import UserError
from scripts.faults import user_sentence

REPOSITORY = Path(__file__).parents[2]


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def bug_while_handling():
    code = "try:\n    raise PermissionError(1, 'not permitted')\nexcept OSError:\n    {}['no such key']"
    exec(compile(code, str(REPOSITORY / "callbacks" / "bug.py"), "exec"))


def fault_while_handling():
    try:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    except OSError as error:
        raise RuntimeError("what follows from it") from error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("a sentence"), "a sentence"),
        (torch.OutOfMemoryError("Tried to allocate 2.00 GiB."), "the GPU is out of memory (2.00 GiB more"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "the GPU is out of memory:"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "the GPU is out of memory:"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes."),
         "memory is full (64 bytes more"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
         "memory is full (64 bytes more"),
        (MemoryError(), "memory is full"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory is full"),
        (OSError("Caught OSError in DataLoader worker process 0.\n…\nOSError: [Errno 24] Too many open files"),
         "the process has too many open files"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs"), "No space left on device (runs): check"),
        (RuntimeError("unable to write to file </torch_1>: No space left on device"), "loader processes need more"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a loader process died or hung"),
        (RuntimeError("CUDA error: no kernel image is available for execution"), "the GPU cannot be used"),
        (RuntimeError("EADDRINUSE (errno: 98 - Address already in use)"), "the port of the processes' connection"),
        (RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:1"), "another process of this run has"),
        (OverflowError("int too large"), "a number among the options is too large"),
        (raised(fault_while_handling), "the process has too many open files"),
    ],
)  # fmt: skip
def test_a_fault_of_the_user_or_the_machine(error, said):
    assert user_sentence(error).startswith(said)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("key"),
        ValueError("wrong"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: misaligned address"),
        ValueError("DataLoader with multiprocessing_context but num_workers=0"),
        raised(lambda: __import__("torch", fromlist=["x"]).nonexistent),
        raised(lambda: exec("from torch import nonexistent")),
        raised(lambda: exec("import scripts.nonexistent")),
        raised(bug_while_handling),
    ],
)
def test_a_bug(error):
    assert user_sentence(error) is None
