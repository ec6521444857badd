"""The progress of a fit on a terminal: one line of any width."""

import io
import itertools
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from callbacks.run.progress import fitting
from scripts.main import main
from tests.conftest import SMALL

NEW_LINE = re.compile(r"\n|\r|\x1b\[[012]?[KJ]")
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LEFT_ONLY = len("1:02:03 left")


@given(st.integers(0, 200), st.sets(st.sampled_from(["images/s", "train/loss", "val/accuracy", "best"])))
def test_what_is_shown_fits(width, names):
    numbers = {"left": "1:02:03", **dict.fromkeys(sorted(names), "0.123")}
    text = fitting(numbers, width)
    assert text.startswith("1:02:03 left")
    assert len(text) <= max(width, LEFT_ONLY)
    spelled = {name: f"{name} 0.123" for name in sorted(names)} | {"images/s": "0.123 images/s"}
    whole = "  ".join(["1:02:03 left", *(spelled[name] for name in sorted(names))])
    assert (text == whole) == (len(whole) <= width or not names)


@pytest.mark.parametrize("width", [60, 160])
def test_a_fit_shows_one_line(width, data_root, run_folder, monkeypatch):
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width)
    monkeypatch.setattr("callbacks.run.progress.Console", lambda: console)
    monkeypatch.setattr("callbacks.run.progress.time", SimpleNamespace(monotonic=itertools.count().__next__))
    options = ["--trainer.max_epochs=2", "--model.restart_epochs=2", "--data.batch_size=8"]
    main(["fit", *SMALL, *options, f"--data.root={data_root}", "--trainer.enable_progress_bar=true"])
    lines = [COLOUR.sub("", line) for line in NEW_LINE.split(written.getvalue())]
    assert all(len(line) <= width for line in lines)
    lines = [line for line in lines if " left" in line]
    assert not any(re.search("-1 day|-[0-9]", line) for line in lines)
    titles = [re.match(r"epoch \d/\d|validating", line)[0] for line in lines]
    assert list(dict.fromkeys(titles)) == ["validating", "epoch 1/2", "epoch 2/2"]  # Lightning tries it first
    assert not any("0:00 left" in line for line in lines if line.startswith("epoch 1/2"))
    last = [line for line in lines if line.startswith("epoch 2/2")][-1]
    assert "best 0." in last
    assert ("images/s" in last) == (width == 160)
    assert all(f"epoch {epoch}/2  train/accuracy" in written.getvalue() for epoch in (1, 2))  # the epochs' own lines


def test_a_prediction_shows_the_time_left_and_its_speed(trained, data_root, run_folder, monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr("callbacks.run.progress.Console", lambda: Console(file=written, force_terminal=True, width=100))
    monkeypatch.setattr("callbacks.run.progress.SECONDS_BETWEEN_UPDATES", 0)
    main(["predict", f"--ckpt_path={trained / 'model.safetensors'}", f"--data.root={data_root}",
          "--data.num_workers=0", "--data.batch_size=8", "--trainer.enable_progress_bar=true"])  # fmt: skip
    lines = [COLOUR.sub("", line) for line in NEW_LINE.split(written.getvalue())]
    assert any(re.match(r"predicting .* \d+:\d\d left  \d+ images/s", line) for line in lines)
    assert any(
        re.match(r"24 predictions in prediction.csv and prediction.zip, \d+\.\d images/s", line) for line in lines
    )
