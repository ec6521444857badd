"""Keeps the libraries' remarks that no user can act on away from the console."""

import io
import logging
import sys
import warnings

# Each with its reason. Matched at the start of the message.
REMARKS = {
    "💡 Tip": "advertises another product",
    "TPU available: False": "this project does not use TPUs",
    "`weights_only` was not set": "Lightning says so at every checkpoint it saves in full, as it should here",
}
WARNINGS = {
    r"You called `self\.log\(.*have no logger": "Lightning prints no metrics that are not meant for one",
    r"You're resuming from a checkpoint that ended before the epoch ended": "the sampler goes on inside the epoch",
    r"LightningCLI's args parameter is intended": "an ablation asks it for the settings of its combinations",
    r"The '.*_dataloader' does not have many workers": "Lightning 2.6 counts CPUs that a container's quota withholds",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated": "Lightning 2.6 calls torch by its older name",
}


def hush_libraries() -> None:
    """Installs the filters; everything else still shows."""
    for logger in logging.root.manager.loggerDict:
        if logger.startswith("pytorch_lightning"):
            logging.getLogger(logger).addFilter(lambda record: not record.getMessage().startswith(tuple(REMARKS)))
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)


def escape_what_the_console_cannot_show() -> None:
    """Prints a file name that is no UTF-8 with escapes, where Python would raise."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
