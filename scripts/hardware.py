"""What a run does differently on different machines, unless it is told."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import torch

from datamodules.workers.cpus import cpus_for_each

THREADS = "OMP_NUM_THREADS"  # a user's choice of it stands

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def default_precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """``bf16-mixed`` where the device multiplies bfloat16 numbers in hardware, else ``32-true``.

    A CPU does with AVX512-BF16 or AMX-BF16, or on ARM with BF16; a GPU since NVIDIA's Ampere.

    Args:
        accelerator: As for Lightning's ``Trainer``; ``auto`` is a GPU where there is one.
    """
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator == "cpu" or not torch.backends.mps.is_available():
        # Older releases of torch do not tell.
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        names = ("avx512_bf16", "amx_bf16", "bf16")
        native = torch.backends.mkldnn.is_available() and any(capabilities.get(name, False) for name in names)
    else:
        native = False
    return "bf16-mixed" if native else "32-true"


def set_tf32(precision: str | int | None) -> None:
    """Allows TF32 in the float32 products and convolutions of mixed precision, and nowhere else.

    Args:
        precision: As for Lightning's ``Trainer``.
    """
    is_mixed = str(precision) in ("16", "bf16") or str(precision).endswith("-mixed")
    torch.set_float32_matmul_precision("high" if is_mixed else "highest")
    torch.backends.cudnn.allow_tf32 = is_mixed  # on by default in torch


def keep_freed_memory() -> None:
    """Has malloc keep what is freed, where it would give it back to the kernel and ask for it again.

    A training step on the CPU frees and takes gigabytes; every page that comes back from the kernel has to be zeroed
    first. Measured on 2 cores at 224 px and batch 16: 107,000 page faults and 14 % of the time of a step. Left
    alone on a machine with a GPU, where training does not use this memory.
    """
    if sys.platform == "linux" and not torch.cuda.is_available():
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def own_threads() -> Iterator[None]:
    """Gives a command at most the CPUs there are, and takes back at its end what it or Lightning has set."""
    threads, setting = torch.get_num_threads(), os.environ.get(THREADS)
    if setting is None:
        _limit_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if setting is None:
            os.environ.pop(THREADS, None)


def share_cpus(processes: int) -> None:
    """Gives this process its share of the CPUs.

    Own code, because torch and Lightning 2.6 look at the CPUs that a process is bound to, not at a container's quota.

    Args:
        processes: That train on this machine.
    """
    if THREADS not in os.environ:
        _limit_threads(processes)
        os.environ[THREADS] = str(torch.get_num_threads())  # without it, Lightning's launchers would set another


def _limit_threads(processes: int) -> None:
    if (most := cpus_for_each(processes)) < torch.get_num_threads():
        torch.set_num_threads(most)
