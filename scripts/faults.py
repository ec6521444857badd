"""Tells errors caused by the user or the machine from bugs, and words them in one sentence."""

import errno
import linecache
import re
import traceback
from pathlib import Path

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from datamodules.files.errors import UserError
from scripts.parser import one_sentence

ROOT = Path(__file__).parents[1]
# What lies between the command line and Lightning in every traceback.
ENTRY_FILES = {str(ROOT / "scripts" / f"{name}.py") for name in ("main", "process", "cli")}
PACKAGES = ("scripts", "callbacks", "lightning_modules", "datamodules")
OWN = tuple(str(ROOT / name) for name in PACKAGES)

# A refusal of the operating system that is about the machine rather than about this project's code.
MACHINE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EIO,
    errno.ELOOP, errno.ESTALE,
}  # fmt: skip

LESS_LOADING = "lower --data.num_workers or --data.batch_size"
SHARED_MEMORY = (
    f"loader processes need more shared memory than /dev/shm has: {LESS_LOADING}, or give the container more, as "
    "docker run --shm-size 8g does"
)
TOO_MANY_FILES = (
    "the process has too many open files: raise the limit with ulimit -n 65536, or lower --data.num_workers"
)
# What torch says, where it has no type of its own for it, and what that means to a user.
TORCH_MESSAGES = {
    r"out of shared memory|unable to (write to file|allocate shared memory|resize file|mmap \d+ bytes)": SHARED_MEMORY,
    r"Too many open files|received \d+ items of ancdata": TOO_MANY_FILES,
    r"^DataLoader (?P<what>.*)": (
        "a loader process died or hung (DataLoader {what}): lower --data.num_workers if memory is short, or raise "
        "--data.worker_timeout"
    ),
    r"can't allocate memory: you tried to allocate (?P<what>\d+) bytes": (
        f"memory is full ({{what}} bytes more were needed): {LESS_LOADING}"
    ),
    r"Cannot allocate memory": f"memory is full: {LESS_LOADING}",
    r"Expected more than 1 value per channel when training": (
        "batch normalisation needs more than one value per channel, which a batch of one image of this size does not "
        "have: raise --data.batch_size or --data.image_size"
    ),
    # Not a failed assertion or an illegal access on the device, which are bugs.
    r"(?P<what>Found no NVIDIA driver|No CUDA GPUs|CUDA (driver|error: (?!device-side|an illegal))[^\n]*)": (
        "the GPU cannot be used ({what}): look at nvidia-smi, or pass --trainer.accelerator cpu"
    ),
    r"(?P<what>Connection (closed|reset|refused)[^\n]*|NCCL error[^\n]*|Broken pipe|EADDRINUSE[^\n]*)": (
        "another process of this run has ended or cannot be reached ({what}): its own message says why"
    ),
}


def user_sentence(error: BaseException) -> str | None:
    """Returns what was wrong, the value, and what to do if a user or the machine has caused the exception, else None.

    In a chain of exceptions the earliest decides, as the later ones follow from it.

    >>> user_sentence(MemoryError())
    'memory is full: lower --data.num_workers or --data.batch_size'
    >>> user_sentence(KeyError("a fault of ours")) is None
    True
    """
    faults = [error]
    while origin := faults[-1].__cause__ or faults[-1].__context__:
        faults.append(origin)
    if isinstance(error, UserError):
        return str(error)
    for fault in reversed(faults):
        if sentence := str(fault) if isinstance(fault, UserError) else _of_the_machine(fault):
            return sentence
    return _of_the_options(error)


def _of_the_machine(error: BaseException) -> str | None:
    if isinstance(error, torch.OutOfMemoryError):
        asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
        return (
            f"the GPU is out of memory{f' ({asked[1]} more was needed)' if asked else ''}: lower --data.batch_size; "
            "fit can also take --model.activation_checkpointing true"
        )
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return f"memory is full: {LESS_LOADING}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return TOO_MANY_FILES
    if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}: check the permissions and the free disk space"
    if isinstance(error, RuntimeError | ValueError):
        for pattern, sentence in TORCH_MESSAGES.items():
            if found := re.search(pattern, str(error)):
                return sentence.format(**{name: text.strip(" .") for name, text in found.groupdict().items()})
    return None


def _of_the_options(error: BaseException) -> str | None:
    if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] not in PACKAGES:
        return f"cannot import {error.name}: check its spelling, or install the package that provides it"
    if isinstance(error, ValueError) and "Problem with given class_path" in str(error):
        return one_sentence(str(error))
    if _is_refusal_by_lightning(error):
        said = " ".join(str(error).split()) or f"{type(error).__name__} from {_last_call(error)}"
        return f"Lightning does not accept these options: {said}"
    return None


def _last_call(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).stem}.{frame.name}"


def _is_refusal_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raises it, on purpose, about what it was given from the command line."""
    frames = traceback.extract_tb(error.__traceback__)
    kinds = MisconfigurationException | ValueError | TypeError | AttributeError | ImportError | RuntimeError
    if not frames or not isinstance(error, kinds):
        return False
    last = frames[-1]
    packages = set(Path(last.filename).parts)
    is_lightnings = bool(packages & {"pytorch_lightning", "lightning_fabric", "lightning_utilities"})
    is_raised = linecache.getline(last.filename, last.lineno or 0).lstrip().startswith("raise")
    ours = any(frame.filename.startswith(OWN) and frame.filename not in ENTRY_FILES for frame in frames)
    return is_lightnings and is_raised and not ours
