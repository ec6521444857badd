import os
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed

from scripts.hardware import THREADS, keep_freed_memory, own_threads, set_tf32, share_cpus

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


@pytest.mark.parametrize(
    ("precision", "matrices", "convolutions"),
    [
        ("bf16-mixed", "high", True),
        ("16-mixed", "high", True),
        ("bf16", "high", True),
        (16, "high", True),
        ("32-true", "highest", False),
        (32, "highest", False),
    ],
)
def test_what_is_all_float32_is_rounded_to_nothing_else(precision, matrices, convolutions):
    try:
        set_tf32(precision)
        assert torch.get_float32_matmul_precision() == matrices
        assert torch.backends.cudnn.allow_tf32 == convolutions
    finally:
        set_tf32("32-true")


@pytest.mark.parametrize("with_gpu", [False, True])
def test_freed_memory_is_kept_where_the_cpu_trains(with_gpu, monkeypatch):
    calls = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: with_gpu)
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=lambda *setting: calls.append(setting)))
    keep_freed_memory()
    # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h
    assert calls == ([] if with_gpu else [(-4, 0), (-1, 2**31 - 1)])
