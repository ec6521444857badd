import json
import time
from pathlib import Path

import pytest
from pytorch_lightning import Callback

from scripts.benchmark.fit_step import _row
from tests.integration.fork_driver import drive

SECONDS = 0.5


class Rest(Callback):
    def on_train_batch_end(self, *args):
        time.sleep(SECONDS)


WORDS = ["benchmark", "step", "--data.image_size=32", "--data.batch_size=2", "--rounds=2", "--steps=1"]


def test_a_row_compares_turn_by_turn():
    # 4 / 2, 3 / 2 and 4 / 4 are 100, 50 and 0 % more; the quartiles of three values lie half way between them
    row = _row("x", [4.0, 3.0, 4.0], [2.0, 2.0, 4.0])
    assert row == {"name": "x", "ms": 4000.0, "added %": 50.0, "lower quartile": 25.0, "upper quartile": 75.0}


@pytest.mark.processes
def test_the_step_is_that_of_a_fit(run_folder):
    """With what callbacks do in it; several options make one contender."""
    slower = f"--model.loss=cross_entropy trainer.callbacks.class_path={__name__}.Rest"
    (outcome,) = drive({"args": [*WORDS, f"--with={slower}", "--json=figures.json"]})
    assert outcome["code"] == 0, outcome["error"]
    figures = json.loads(Path("figures.json").read_text())
    base, slow = figures["rows"]
    assert (base["name"], slow["name"]) == ("base", slower)
    assert base["added %"] == base["upper quartile"] == 0
    assert slow["ms"] > 1e3 * SECONDS
    assert slow["added %"] > 0
    assert [path.name for path in run_folder.iterdir()] == ["figures.json"]


@pytest.mark.processes
def test_an_option_that_is_wrong_is_named(run_folder):
    (outcome,) = drive({"args": [*WORDS, "--with=model.focal_gamma=-1"]})
    assert outcome["code"] == 2
    sentence = "cannot time a training step with model.focal_gamma=-1: --model.focal_gamma must be a finite number"
    assert outcome["error"].splitlines()[-1].startswith(f"cbam100: error: {sentence}")
