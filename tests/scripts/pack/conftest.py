"""The folder that tests pack."""

import pytest

from tests.scripts.pack.odd_names import make


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # for indexes
    return make(tmp_path / "root")
