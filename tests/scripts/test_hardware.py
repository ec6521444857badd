import os

import pytest
import torch
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed

from scripts.hardware import THREADS, own_threads, share_cpus

CPUS = 4  # of a quota


@pytest.fixture(autouse=True)
def _eight_threads(monkeypatch):
    monkeypatch.setattr("scripts.hardware.cpus_for_each", lambda processes: CPUS // processes)
    monkeypatch.delenv(THREADS, raising=False)
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(1)


def test_a_command_gets_the_cpus_there_are_and_each_process_its_share():
    with own_threads():
        assert torch.get_num_threads() == CPUS
        share_cpus(2)
        _set_num_threads_if_needed(2)  # as Lightning's launchers do
        assert torch.get_num_threads() == CPUS // 2
        assert os.environ[THREADS] == str(CPUS // 2)
    assert torch.get_num_threads() == 8
    assert THREADS not in os.environ


def test_more_cpus_than_threads_change_nothing():
    torch.set_num_threads(3)
    with own_threads():
        share_cpus(1)
        assert torch.get_num_threads() == 3


def test_a_users_choice_stands(monkeypatch):
    monkeypatch.setenv(THREADS, "8")
    with own_threads():
        share_cpus(2)
        assert torch.get_num_threads() == 8
    assert os.environ[THREADS] == "8"
