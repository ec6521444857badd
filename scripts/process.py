"""Which part of the program a word starts, and how it ends."""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from pytorch_lightning.cli import ArgsType
from pytorch_lightning.utilities.exceptions import SIGTERMException

from callbacks.guards.interruption import is_ours
from datamodules.workers.parent_watch import end_with_parent
from datamodules.workers.process import SIGNALS
from scripts.cli import ClassifierCLI
from scripts.console import escape_what_the_console_cannot_show, hush_libraries
from scripts.faults import user_sentence
from scripts.hardware import keep_freed_memory, own_threads

LAUNCHER = "CBAM100_LAUNCHER"
# Commands that are not LightningCLI's, and the modules whose main they are.
OWN = {
    "audit": "scripts.audit",
    "explain": "scripts.explain.command",
    "report": "scripts.report.command",
    "ablate": "scripts.ablation.command",
    "benchmark": "scripts.benchmark.command",
}
USER_ERROR, INTERRUPTED, TERMINATED = 2, 130, 143


def run(args: ArgsType = None) -> None:
    """Runs ``cbam100``.

    Args:
        args: As on the command line, which is where they come from by default.

    Raises:
        SystemExit: With 2 after a user's error, which is printed to stderr in one sentence; with 128 and its number
            after a signal; after an audit always, with 1 where something would stop a run and 0 elsewhere.
    """
    keep_freed_memory()
    hush_libraries()
    escape_what_the_console_cannot_show()
    _end_with_launcher()
    words = sys.argv[1:] if args is None else args
    with own_threads(), _ended_by_signals():
        _run(words, args)


def _run(words: ArgsType, args: ArgsType) -> None:
    try:
        match words:
            case [str(command), *options] if command in OWN:  # each imports what the others can do without
                code = importlib.import_module(OWN[command]).main(options)
                if code is not None:
                    raise SystemExit(code)
            case _:
                ClassifierCLI(args)
    except KeyboardInterrupt as error:
        raise SystemExit(INTERRUPTED) from error
    except SIGTERMException as error:
        raise SystemExit(TERMINATED) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes 1 of it
            raise SystemExit(INTERRUPTED) from error
        raise
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        print(f"cbam100: error: {sentence}", file=sys.stderr)
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where a loader process is killed
        for process in multiprocessing.active_children():
            process.kill()  # one that hangs would hold up this one's end
        raise SystemExit(USER_ERROR) from error


def _end_with_launcher() -> None:
    """Has a machine's other processes end with the first, whose environment they got when it started them.

    Lightning looks after one direction only: its first process ends when another dies, but the others go on when the
    first is killed, until a collective operation fails, which may be hours later. From the start, because who waits for
    the others to join runs no code.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[LAUNCHER] = str(os.getpid())
    elif "TORCHELASTIC_RUN_ID" in os.environ or LAUNCHER not in os.environ:
        end_with_parent(os.getppid())  # torchrun or another program
    else:
        end_with_parent(int(os.environ[LAUNCHER]))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ends the program in order on each signal; until Interruption takes over, once work begins."""
    before = {number: signal.getsignal(number) for number in SIGNALS if is_ours(number)}
    for number in before.keys() - {signal.SIGINT}:  # Python makes KeyboardInterrupt of that one
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # installed by something else than Python
                signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
