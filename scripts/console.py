"""What the console shows: no remarks of libraries that no user can act on, escapes, and numbers of things."""

import io
import logging
import sys
import warnings

# Starts of log messages and warnings, each with the reason why it is hidden.
REMARKS = {
    "💡 Tip": "advertises another product",
    "TPU available: False": "this project does not use TPUs",
    "`weights_only` was not set": "Lightning says so whenever it saves a full checkpoint, which is intended",
}
WARNINGS = {
    r"You called `self\.log\(.*have no logger": "the metrics concerned are not meant for the logger",
    r"You're resuming from a checkpoint that ended before the epoch ended": "the sampler resumes inside an epoch",
    r"LightningCLI's args parameter is intended": "an ablation asks it for the settings of its arms",
    r"The '.*_dataloader' does not have many workers": "Lightning 2.6 ignores a container's CPU quota",
    r"When using `Trainer\(accumulate_grad_batches != 1\)` and overriding": "an average counts optimiser steps, too",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated": "Lightning 2.6 calls torch by its older name",
}


def hush_libraries() -> None:
    """Hides these messages; all others still appear."""
    for logger in logging.root.manager.loggerDict:
        if logger.startswith("pytorch_lightning"):
            logging.getLogger(logger).addFilter(lambda record: not record.getMessage().startswith(tuple(REMARKS)))
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)


def escape_what_the_console_cannot_show() -> None:
    """Makes ``print`` escape characters that it cannot encode, as in a file name that is not UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def printable(name: str) -> str:
    r"""Escapes characters that would move the cursor or end a row of a table.

    >>> print(printable("one\ntwo"))
    one\ntwo
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun, in the plural unless there is one.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
