import types

import psutil
import pytest
import torch

from callbacks.guards import peak_memory
from callbacks.guards.peak_memory import PeakMemory, resident_peak


def finish():
    strategy = types.SimpleNamespace(root_device=torch.device("cpu"))
    PeakMemory().teardown(types.SimpleNamespace(is_global_zero=True, strategy=strategy), None, "fit")


def test_the_peak_is_at_least_what_is_held():
    held = psutil.Process().memory_info().rss
    assert 10e6 < 0.9 * held < resident_peak() < 1e12  # the kernel counts in batches


@pytest.mark.parametrize(
    ("facts", "line"),
    [({"peak_wset": 2_340_000_000}, "peak memory: 2.34 GB of the process\n"), ({"rss": 1}, "")],
)
def test_without_resource(facts, line, monkeypatch, capsys):
    """On Windows psutil knows the peak; elsewhere nothing does."""
    monkeypatch.setattr(peak_memory, "resource", None)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: types.SimpleNamespace(**facts))
    finish()
    assert capsys.readouterr().out == line
