import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datamodules.files.errors import UserError
from lightning_modules import ResNetCBAM
from scripts.benchmark import benchmark
from scripts.benchmark.step import flops_per_image
from scripts.benchmark.timing import rows
from scripts.main import main

BASELINE = """
import json, sys
assert sys.argv[1] in ("step", "input")
print("a line before")
print(json.dumps({"train_images_per_s": 2.0, "infer_images_per_s": 4.0,
                  "train_images_per_s_per_core": 8.0, "eval_images_per_s_per_core": 16.0}))
"""


@pytest.fixture
def baseline(tmp_path):
    path = tmp_path / "baseline.py"
    path.write_text(BASELINE)
    return path


def measured(tmp_path, *words):
    main(["benchmark", *words, "--rounds=1", f"--json={tmp_path / 'figures.json'}"])
    return json.loads((tmp_path / "figures.json").read_text())


def test_a_row_is_medians_and_their_ratio():
    # 8 images in 2 s (the median of 1, 2, 4) are 4 images/s; the base takes 6 s, three times as long.
    row, _ = rows(8, {"x": [4.0, 1.0, 2.0], "x, plain": [6.0, 5.0, 7.0]})
    assert row == {"name": "x", "images_per_s": 4.0, "slowest": 2.0, "fastest": 8.0, "gain": 3.0}


def test_flops_are_the_published_ones():
    """4.09 billion multiplications and additions an image at 224 px for ResNet50; three times that to train, but for
    the first convolution, which needs no gradient of its input."""
    network = ResNetCBAM(1000, attention="none")
    images = torch.zeros(2, 3, 224, 224)
    infer = flops_per_image(network, images, training=False)
    assert infer == pytest.approx(2 * 4.089e9, rel=1e-3)
    first = 2 * 112 * 112 * 64 * 3 * 49
    assert flops_per_image(network, images, training=True) == pytest.approx(3 * infer - first, rel=1e-6)


def test_step_compares_with_an_outside_script(tmp_path, baseline, monkeypatch, capsys):
    monkeypatch.setattr("scripts.benchmark.step.PEAK_SIDE", 256)
    words = ["step", "--data.image_size=32", "--data.batch_size=8", "--steps=1", f"--baseline={baseline}"]
    figures = measured(tmp_path, *words)
    assert figures["train_gain_over_baseline"] == pytest.approx(figures["train_images_per_s"] / 2.0)
    assert figures["infer_gain_over_baseline"] == pytest.approx(figures["infer_images_per_s"] / 4.0)
    rates = {entry["name"]: entry["images_per_s"] for entry in figures["rows"]}
    assert figures["attention_cost_of_train_step"] == rates["train, without attention"] / rates["train"] - 1
    assert figures["train_share_of_roofline"] > 0
    assert "train, baseline.py" in capsys.readouterr().out


def test_input_compares_with_an_outside_script(tmp_path, baseline, data_root):
    words = ["input", f"--data.root={data_root}", "--data.image_size=32", "--images=12", f"--baseline={baseline}"]
    figures = measured(tmp_path, *words)
    assert figures["images"] == 12
    assert figures["versions"].keys() >= {"cbam100", "torch"}
    assert figures["train_gain_over_baseline"] == pytest.approx(figures["train_images_per_s_per_core"] / 8.0)
    assert figures["eval_gain_over_baseline"] == pytest.approx(figures["eval_images_per_s_per_core"] / 16.0)


def test_the_function_returns_the_figures(tmp_path, data_root, capsys):
    file = tmp_path / "figures.json"
    figures = benchmark("input", root=str(data_root), image_size=32, images=2, rounds=1, json=str(file))
    assert figures == json.loads(file.read_text())
    assert figures["train_images_per_s_per_core"] > 0
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="--rounds must be at least 1, got 0"):
        benchmark("step", rounds=0)
    with pytest.raises(UserError, match="there is no benchmark dance: choose one of step, input, busy"):
        benchmark("dance")


@pytest.mark.slow  # an interpreter for each way to wait
@pytest.mark.processes
def test_busy_compares_ways_to_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.benchmark.busy.BUSY", (0, 1))
    figures = measured(tmp_path, "busy", "--data.image_size=32", "--data.batch_size=2", "--steps=1")
    base = figures["rows"][0]
    for entry in figures["rows"]:
        for busy in (0, 1):
            assert entry[f"gain, {busy} busy"] == pytest.approx(base[f"s, {busy} busy"] / entry[f"s, {busy} busy"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dance"], "invalid choice: 'dance'"),
        (["input"], "input needs --data.root"),
        (["busy", "--with=model.dropout=0"], "use it with step, and without --baseline"),
        (["step", "--with=model.dropout=0", "--baseline=x.py"], "use it with step, and without --baseline"),
        (["step", "--data.image_size=32", "--baseline=nowhere.py"], "nowhere.py step printed no line of JSON"),
    ],
)
def test_refuses_in_one_sentence(words, sentence, refusal):
    assert sentence in refusal("benchmark", *words)


def test_help_waits_for_no_library():
    code = "import sys; from scripts.main import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "False"
    assert all(command in done.stdout for command in ("audit", "fit", "validate", "test", "predict", "benchmark"))
