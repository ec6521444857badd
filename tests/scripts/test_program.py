import signal

import pytest

from datamodules.worker_process import SIGNALS
from scripts.program import _ended_by_signals


@pytest.mark.parametrize("number", set(SIGNALS) - {signal.SIGINT})
def test_a_signal_before_work_begins_ends_in_order(number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, _ended_by_signals():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before
