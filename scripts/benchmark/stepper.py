"""Processes that do training steps when they are asked to, so that several of them can take turns."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from datamodules.files.errors import UserError

ERROR = "cbam100: error: "
Steps = Callable[[int], float]


@contextmanager
def stepper(name: str, started: dict[str, Any]) -> Iterator[Steps]:
    """Starts a process that answers each number on its standard input with a line of seconds; ends it afterwards.

    Args:
        name: Name of what it does, for messages.
        started: ``args`` and ``env`` of the process.

    Yields:
        A function that has the process do a number of steps, and returns the mean of their seconds. It raises
        ``UserError`` with what the process said if that has ended.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said,
        subprocess.Popen(**started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        orders, answers = process.stdin, process.stdout
        assert orders
        assert answers

        def steps(number: int) -> float:
            try:
                print(number, file=orders, flush=True)
                return float(next(answers))
            except (BrokenPipeError, StopIteration) as error:
                process.wait()
                with suppress(BrokenPipeError):
                    orders.close()  # what it did not read would be written again
                said.seek(0)
                lines = said.read().strip().splitlines() or ["it said nothing"]
                reason = next((line for line in reversed(lines) if line.startswith(ERROR)), lines[-1])
                raise UserError(f"cannot time a training step with {name}: {reason.removeprefix(ERROR)}") from error

        try:
            yield steps
        finally:
            process.kill()
