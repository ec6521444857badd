"""Tells errors caused by the user or the machine from bugs, and words them in one sentence."""

import errno
import linecache
import os
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
# Of a path among the options, where it is not this project's code that uses it.
PATH_ERRNOS = {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EFBIG}
GPU_MEMORY = r"MPS backend out of memory|CUDA error: out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED"
# What torch says, where it has no type of its own for it, and what that means to a user.
TORCH_MESSAGES = {
    r"out of shared memory|open shared file mapping|"
    r"unable to (write to file|allocate shared memory|resize file|mmap \d+ bytes)": SHARED_MEMORY,
    r"Too many open files|received \d+ items of ancdata": TOO_MANY_FILES,
    r"^DataLoader (?P<what>(worker|timed out).*)": (
        "a loader process died or hung (DataLoader {what}): lower --data.num_workers if memory is short, or raise "
        "--data.worker_timeout"
    ),
    r"(can't allocate|not enough) memory: you tried to allocate (?P<what>\d+) bytes": (
        f"memory is full ({{what}} bytes more were needed): {LESS_LOADING}"
    ),
    r"Cannot allocate memory": f"memory is full: {LESS_LOADING}",
    r"Expected more than 1 value per channel when training": (
        "batch normalisation needs more than one value per channel, which a batch of one image of this size does not "
        "have: raise --data.batch_size or --data.image_size"
    ),
    # Not what a kernel did wrong, which is a bug.
    r"(?P<what>Found no NVIDIA driver|No CUDA GPUs|CUDA driver (version|initialization)[^\n]*|CUDA error: "
    r"(no kernel image|no CUDA-capable device|all CUDA-capable devices|initialization error|system not yet)[^\n]*)": (
        "the GPU cannot be used ({what}): look at nvidia-smi, or pass --trainer.accelerator cpu"
    ),
    r"EADDRINUSE|[Aa]ddress already in use": (
        "the port of the processes' connection is taken: set MASTER_PORT to another number"
    ),
    r"(?P<what>Connection (closed|reset|refused)[^\n]*|NCCL error[^\n]*|Timed out[^\n]*clients[^\n]*)": (
        "another process of this run has ended or cannot be reached ({what}): its own message says why"
    ),
}
# Kinds of exceptions that say something about options when they are raised where these are used.
OF_OPTIONS = MisconfigurationException | ValueError | TypeError | AttributeError | ImportError | RuntimeError
# Kinds that are bugs, whatever was being handled when they were raised.
OF_BUGS = KeyError | IndexError | NameError | AttributeError | AssertionError | TypeError


def user_sentence(error: BaseException) -> str | None:
    """Returns what was wrong, the value, and what to do if a user or the machine has caused the exception, else None.

    In a chain of exceptions the earliest decides, as the later ones follow from it.

    >>> user_sentence(MemoryError())
    'memory is full: lower --data.num_workers or --data.batch_size'
    >>> user_sentence(KeyError("a bug")) is None
    True
    """
    if isinstance(error, UserError):
        return str(error)
    for fault in reversed(_chain(error)):
        if sentence := str(fault) if isinstance(fault, UserError) else _of_the_machine(fault):
            return sentence
    return _of_the_options(error)


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an exception and those that led to it; none, if it is a bug in code that handled another."""
    faults = [error]
    while True:
        last = faults[-1]
        origin = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if origin is None or (origin is last.__context__ and isinstance(last, OF_BUGS) and _is_ours(last)):
            return faults
        faults.append(origin)


def _of_the_machine(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and re.search(GPU_MEMORY, text)):
        asked = re.search(r"allocate ([\d.]+ \w+)", text)
        return (
            f"the GPU is out of memory{f' ({asked[1]} more was needed)' if asked else ''}: lower --data.batch_size; "
            "fit can also take --model.activation_checkpointing true"
        )
    if isinstance(error, OSError):
        number = error.errno or int((re.search(r"\[Errno (\d+)\]", text) or [0, 0])[1])  # a loader passes on the text
        if number in (errno.EMFILE, errno.ENFILE):
            return TOO_MANY_FILES
        if number in MACHINE_ERRNOS or (number in PATH_ERRNOS and not _is_ours(error)):
            where = f" ({error.filename})" if error.filename else ""
            return f"{os.strerror(number)}{where}: check the path, its permissions and the free disk space"
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return f"memory is full: {LESS_LOADING}"
    if isinstance(error, OverflowError):
        return f"a number among the options is too large ({text}): choose a smaller one"
    if isinstance(error, RuntimeError | ValueError):
        for pattern, sentence in TORCH_MESSAGES.items():
            if found := re.search(pattern, text):
                return sentence.format(**{name: what.strip(" .") for name, what in found.groupdict().items()})
    return None


def _of_the_options(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return None
    last, text = frames[-1], str(error)
    folders = set(Path(last.filename).parts)
    if isinstance(error, UnicodeDecodeError) and any("jsonargparse" in frame.filename for frame in frames):
        return f"a file among the options is not UTF-8 text (position {error.start}): save it as UTF-8"
    if isinstance(error, ValueError) and "jsonargparse" in folders:
        return one_sentence(text)
    if _is_ours(error):
        return None
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in PACKAGES:
        return f"cannot import {error.name}: check its spelling, or install the package that provides it"
    # Lightning or torch raises it on purpose, or while a Trainer is made of the options.
    is_theirs = bool(folders & {"pytorch_lightning", "lightning_fabric", "lightning_utilities"})
    is_theirs |= "torch" in folders and isinstance(error, ValueError | TypeError)
    is_raised = linecache.getline(last.filename, last.lineno or 0).lstrip().startswith("raise")
    is_made = any(frame.name == "instantiate_trainer" for frame in frames) or "unexpected keyword argument" in text
    if isinstance(error, OF_OPTIONS | AssertionError) and (is_made or (is_raised and is_theirs)):
        said = " ".join(text.split()) or f"{type(error).__name__} from {Path(last.filename).stem}.{last.name}"
        return f"Lightning does not accept these options: {said}"
    return None


def _is_ours(error: BaseException) -> bool:
    """Returns whether code of this project, other than what lies before every command, made the failed call."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename.startswith(OWN) and frame.filename not in ENTRY_FILES for frame in frames)
