import signal

import pytest
import torch

from datamodules.files.errors import UserError
from datamodules.workers.process import SIGNALS
from scripts.process import _ended_by_signals, run


@pytest.mark.parametrize("number", set(SIGNALS) - {signal.SIGINT})
def test_a_signal_before_work_begins_ends_in_order(number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, _ended_by_signals():
        signal.raise_signal(number)
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79",
            " (2.00 GiB more was needed)",
        ),
        ("another sentence of a later torch", ""),
    ],
)
def test_a_batch_that_does_not_fit_the_gpu_is_said_in_one_sentence(said, shown, monkeypatch, capsys):
    def fail(*_):
        raise torch.OutOfMemoryError(said)

    monkeypatch.setattr("scripts.process.ClassifierCLI", fail)
    with pytest.raises(SystemExit, match="2"):
        run(["fit"])
    assert capsys.readouterr().err == (
        f"cbam100: error: the GPU is out of memory{shown}: lower --data.batch_size; fit can also take "
        "--model.activation_checkpointing true\n"
    )


def test_an_error_that_quotes_several_lines_is_one(monkeypatch, capsys):
    def fail(*_):
        raise UserError("the file cannot be read (line 2:\n    a: b: c\n       ^): check it")

    monkeypatch.setattr("scripts.process.ClassifierCLI", fail)
    with pytest.raises(SystemExit, match="2"):
        run(["fit"])
    assert capsys.readouterr().err == "cbam100: error: the file cannot be read (line 2: a: b: c ^): check it\n"
