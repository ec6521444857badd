"""Runs the command that was typed, and turns errors and signals into exit codes."""

import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from pytorch_lightning.cli import ArgsType
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.guards.interruption import is_ours
from datamodules.workers.parent_watch import end_with_parent
from datamodules.workers.process import SIGNALS, let_children_be_killed
from scripts.cli import ClassifierCLI
from scripts.console import escape_what_the_console_cannot_show, hush_libraries
from scripts.faults import user_sentence
from scripts.hardware import keep_freed_memory, own_threads

LAUNCHER = "CBAM100_LAUNCHER"
# Modules whose ``main`` runs a command; LightningCLI runs the others.
OWN = {
    "audit": "scripts.audit",
    "pack": "scripts.pack.command",
    "compare": "scripts.compare",
    "export": "scripts.export.command",
    "explain": "scripts.explain.command",
    "report": "scripts.report.command",
    "serve": "scripts.serve.command",
    "ablate": "scripts.ablation.command",
    "benchmark": "scripts.benchmark.command",
}
USER_ERROR, INTERRUPTED, OUTPUT_CLOSED, TERMINATED = 2, 130, 141, 143


def run(args: ArgsType = None, cli: type[ClassifierCLI] | None = None) -> None:
    """Runs ``cbam100`` with ``args``, which by default are those of the command line.

    Args:
        args: The words that follow ``cbam100``.
        cli: Class that runs fit, validate, test and predict; by default ``ClassifierCLI``.

    Raises:
        SystemExit: With 2 after a user's error, which is printed to stderr in one sentence; with 128 plus its number
            after a signal; always after an audit, with 1 if something would stop a run and 0 otherwise.
    """
    keep_freed_memory()
    hush_libraries()
    escape_what_the_console_cannot_show()
    _end_with_launcher()
    words = sys.argv[1:] if args is None else args
    with own_threads(), _ended_by_signals():
        _run(words, args, cli)


def _run(words: ArgsType, args: ArgsType, cli: type[ClassifierCLI] | None) -> None:
    try:
        match words:
            case [str(command), *options] if command in OWN:  # imported late, as the other commands do not need it
                code = importlib.import_module(OWN[command]).main(options)
                if code is not None:
                    raise SystemExit(code)
            case _:
                (cli or ClassifierCLI)(args)
    except KeyboardInterrupt as error:
        raise SystemExit(INTERRUPTED) from error
    except SIGTERMException as error:
        raise SystemExit(TERMINATED) from error
    except BrokenPipeError as error:  # whoever reads the output has left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(OUTPUT_CLOSED) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning exits with 1
            raise SystemExit(INTERRUPTED) from error
        raise
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        print("cbam100: error:", *map(str.strip, sentence.splitlines()), file=sys.stderr)  # on one line
        let_children_be_killed()
        for process in multiprocessing.active_children():
            process.kill()  # one that hangs would keep this process from ending
        _drop(error)
        raise SystemExit(USER_ERROR) from error


def _drop(error: BaseException | None) -> None:
    """Deletes what the failed calls held, without the complaints of loaders that were only half made."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    sys.unraisablehook = hook


def _end_with_launcher() -> None:
    """Ends the other processes on this machine when the first one dies, which started them with its environment.

    Lightning ends the first process when another dies, but when the first is killed the others go on until a
    collective operation fails, which may be hours later. Called at once, as a process that waits for the others to join
    runs no Python code.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[LAUNCHER] = str(os.getpid())
    elif "TORCHELASTIC_RUN_ID" in os.environ or LAUNCHER not in os.environ:
        end_with_parent(os.getppid())  # torchrun or another program
    else:
        end_with_parent(int(os.environ[LAUNCHER]))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ends the program in order after a signal, until the callback ``Interruption`` takes over in a run."""
    before = {number: signal.getsignal(number) for number in SIGNALS if is_ours(number)}
    for number in before.keys() - {signal.SIGINT}:  # which raises KeyboardInterrupt
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None if it was not installed by Python
                signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
