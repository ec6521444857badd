"""Signals come from a process of their own, as a group's do; what is stuck reads a pipe into which nobody writes."""

import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
from multiprocessing.forkserver import _forkserver

import pytest
import torch
from torch.utils.data import SequentialSampler

from datamodules.image_dataset import Batch
from datamodules.workers.loader import build_loader
from datamodules.workers.pool import CHUNK, map_in_processes
from datamodules.workers.process import SIGNALS, _kill_the_stuck

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does not learn who sent a signal")
SECONDS = 60  # after which what should have happened has failed


class Numbers:
    """Of which one may take for ever. Its process gets every signal while it starts, where that unpickles it."""

    def __init__(self, count, stuck_at=None, pipe=None, holding_the_interpreter=False):
        self.count, self.stuck_at, self.pipe, self.holds = count, stuck_at, pipe, holding_the_interpreter

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if number == self.stuck_at:
            with open(self.pipe) as pipe:
                re.match(r"(a+)+$", "a" * 99 + "b") if self.holds else pipe.read()
        return Batch(torch.zeros(1, 1, 3), torch.tensor(0), torch.tensor(number))

    def __setstate__(self, state):
        self.__dict__.update(state)
        signal_from_outside(os.getpid())


def signal_from_outside(pid):
    for number in SIGNALS:
        subprocess.run(["kill", f"-{int(number)}", str(pid)], check=True)


def batches(dataset):
    sampler = SequentialSampler(dataset)
    options = {"batch_size": 1, "drop_last": False, "pin_memory": False}
    return iter(build_loader(dataset, sampler, **options, num_workers=1, worker_timeout=SECONDS))


@pytest.fixture
def start_method():
    method = multiprocessing.get_start_method()
    _forkserver._stop()  # one that other tests have started may not hold signals back
    yield lambda new: multiprocessing.set_start_method(new, force=True)
    multiprocessing.set_start_method(method, force=True)


def started(before):
    (process,) = set(multiprocessing.active_children()) - set(before)
    return process


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_loader_process_outlives_the_groups_signals(method, start_method, monkeypatch):
    start_method(method)
    # The first thing that torch has a worker do
    monkeypatch.setattr("torch.multiprocessing._set_thread_name", lambda name: signal_from_outside(os.getpid()))
    before = multiprocessing.active_children()
    iterator = batches(Numbers(100))
    numbers = [int(next(iterator).samples)]
    signal_from_outside(started(before).pid)
    if method == "forkserver":
        signal_from_outside(_forkserver._forkserver_pid)
    numbers += [int(batch.samples) for batch in iterator]
    assert numbers == list(range(100))


def test_a_stuck_loader_process_ends_when_the_main_process_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    os.mkfifo(tmp_path / "pipe")
    before = multiprocessing.active_children()
    iterator = batches(Numbers(2, stuck_at=1, pipe=tmp_path / "pipe"))
    next(iterator)
    process = started(before)
    with open(tmp_path / "pipe", "w"):  # waits for the reader
        iterator._shutdown_workers()
        process.join(SECONDS)
        assert process.exitcode == 0  # no error, which torch would raise


def test_a_stuck_loader_process_ends_with_its_main_process(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader, writer = os.pipe()
    main = os.fork()
    if main == 0:
        next(batches(Numbers(2, stuck_at=1, pipe=tmp_path / "pipe")))
        signal.pause()
    os.close(writer)
    with open(tmp_path / "pipe", "w"):
        os.kill(main, signal.SIGKILL)
        os.waitpid(main, 0)
        ready, _, _ = select.select([reader], [], [], SECONDS)
        assert ready  # closed by the last that held it
    os.close(reader)


def test_at_the_end_of_the_program_nothing_waits_for_a_stuck_process(monkeypatch, tmp_path):
    monkeypatch.setattr("datamodules.workers.process.SECONDS_TO_LEAVE", 0.1)
    os.mkfifo(tmp_path / "pipe")
    main = os.fork()
    if main == 0:
        multiprocessing.process._children.clear()
        iterator = batches(Numbers(2, stuck_at=1, pipe=tmp_path / "pipe", holding_the_interpreter=True))
        next(iterator)
        with open(tmp_path / "pipe", "w"):
            _kill_the_stuck()
            multiprocessing.util._exit_function()
        os._exit(0)
    assert os.waitpid(main, 0)[1] == 0


def signalled(number):
    signal_from_outside(os.getpid())
    return number


def test_a_decoding_process_outlives_the_groups_signals():
    assert list(map_in_processes(signalled, range(3), 2)) == [0, 1, 2]


def stuck_at_the_end(place):
    if place:
        place.read_text()


def test_a_stuck_decoding_process_does_not_hold_up_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = multiprocessing.active_children()
    results = map_in_processes(stuck_at_the_end, [None] * CHUNK + [tmp_path / "pipe"], 1)
    next(results)
    with open(tmp_path / "pipe", "w"), pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert set(multiprocessing.active_children()) <= set(before)
