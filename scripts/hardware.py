"""What a run does differently on different machines, unless it is told."""

import ctypes
import sys
from contextlib import suppress

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def default_precision(accelerator: str) -> str:
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


def keep_freed_memory() -> None:
    """Has malloc keep what is freed, where it would give it back to the kernel and ask for it again.

    A training step on the CPU frees and takes gigabytes; every page that comes back from the kernel has to be zeroed
    first. Measured on 2 cores at 224 px and batch 16: 107,000 page faults and 14 % of the time of a step.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
