"""Settings that depend on the machine: precision, TF32, memory allocation and CPU threads."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import torch

from datamodules.workers.cpus import cpus_for_each

THREADS = "OMP_NUM_THREADS"  # if set by the user, threads are left alone

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def default_precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """Returns ``bf16-mixed`` if the device multiplies bfloat16 numbers in hardware, otherwise ``32-true``.

    CPUs with AVX512-BF16, AMX-BF16 or ARM's BF16 do, and NVIDIA's GPUs from Ampere on. ``accelerator`` is that of
    Lightning's ``Trainer``, where ``auto`` is a GPU if there is one.
    """
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or not torch.backends.mps.is_available():
        # Older releases of torch lack the function.
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        names = ("avx512_bf16", "amx_bf16", "bf16")
        native = torch.backends.mkldnn.is_available() and any(capabilities.get(name, False) for name in names)
    else:
        native = False
    return "bf16-mixed" if native else "32-true"


def set_tf32(precision: str | int | None) -> None:
    """Allows TF32 for float32 products and convolutions if ``precision``, of Lightning's ``Trainer``, is mixed."""
    is_mixed = str(precision) in ("16", "bf16") or str(precision).endswith("-mixed")
    torch.set_float32_matmul_precision("high" if is_mixed else "highest")
    torch.backends.cudnn.allow_tf32 = is_mixed  # on by default in torch


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep freed memory, which it would return to the kernel and request again.

    A training step on the CPU frees and allocates gigabytes, and the kernel zeroes every page that it hands out.
    Measured on 2 cores at 224 px and batch 16: 107,000 page faults and 14 % of the time of a step. Does nothing on a
    machine with a GPU, where training does not use this memory.
    """
    if sys.platform == "linux" and not torch.cuda.is_available():
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def own_threads() -> Iterator[None]:
    """Limits a command's threads to the available CPUs; at its end, restores the number from before."""
    threads, is_free = torch.get_num_threads(), THREADS not in os.environ
    if is_free:
        _limit_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if is_free:
            os.environ.pop(THREADS, None)


def share_cpus(processes: int) -> None:
    """Limits this process's threads to its share of the CPUs, where ``processes`` train on this machine.

    Torch and Lightning 2.6 count the CPUs that a process may run on, which ignores a container's quota.
    """
    if THREADS not in os.environ:
        _limit_threads(processes)
        os.environ[THREADS] = str(torch.get_num_threads())  # or Lightning's launchers would set another number


def _limit_threads(processes: int) -> None:
    if (most := cpus_for_each(processes)) < torch.get_num_threads():
        torch.set_num_threads(most)
