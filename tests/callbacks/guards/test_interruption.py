import os
import pty
import signal

import pytest

from callbacks.guards.interruption import Interruption
from datamodules.workers.process import SIGNALS


@pytest.fixture
def interruption():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield Interruption()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_one_request_that_comes_twice_is_one_and_ctrl_c_after_it_ends_at_once(number, interruption, capfd):
    interruption._listen(None)
    signal.raise_signal(number)
    for again in set(SIGNALS) - {signal.SIGINT}:  # as from timeout, torchrun, and an ablation whose whole job is ended
        signal.raise_signal(again)
    assert interruption._received == number
    assert capfd.readouterr().err.count("ending after this step") == 1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_what_nohup_ignores_is_ignored(interruption):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption._listen(None)
    signal.raise_signal(signal.SIGHUP)
    assert not interruption._received


def test_a_terminal_that_is_closed_costs_nothing_that_is_printed_later(interruption):
    began, begun = os.pipe()
    closed, close = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may run these tests
            interruption._listen(None)
            os.write(begun, b"1")
            os.read(closed, 1)
            os.write(1, b"an epoch's line")
            os._exit(interruption._received)
        finally:
            os._exit(1)  # an error must not go on through pytest, in a copy of it
    os.close(begun)  # so that the read ends where the child does
    assert os.read(began, 1)
    os.close(terminal)
    os.write(close, b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == signal.SIGHUP
    for descriptor in (began, closed, close):
        os.close(descriptor)
