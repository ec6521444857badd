"""Tour of the commands: generates images, fits, validates and predicts with ``cbam100``, and lists the results."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from callbacks import SizeBudget
from callbacks.run.run_folder import RUNS, RunFolder
from lightning_modules.network.model_size import format_size

FOLDER = Path("demo")
CONFIG = Path("configs/demo.yaml")


def _program(name: str) -> str:
    """Returns the path of a program in this environment, which need not be activated."""
    return os.path.relpath(Path(sys.executable).parent / name)


def _run(name: str, *arguments: str) -> None:
    command = [_program(name), *arguments]
    print(f"\n$ {shlex.join(command)}", flush=True)
    if code := subprocess.run(command).returncode:
        raise SystemExit(code)


def main() -> None:
    """Runs the tour, from the root of the repository."""
    start = time.monotonic()
    data, prediction = str(FOLDER / "data"), str(FOLDER / "prediction.csv")
    _run("python", "-m", "scripts.demo.make_demo_data", "--output", data)
    _run("cbam100", "fit", "--config", str(CONFIG), "--data.root", data)
    run = RunFolder.newest(CONFIG.stem)
    assert run
    best = str(run.best)
    _run("cbam100", "validate", "--ckpt_path", best, "--data.root", data)
    _run("cbam100", "predict", "--ckpt_path", best, "--data.root", data, "--prediction.path", prediction)

    manifest = run.read_manifest()
    table = Table("", "", title="demo", show_header=False)
    table.add_row("val accuracy", f"{manifest['best']['val/accuracy']:.3f} on 100 classes (chance 0.010)")
    table.add_row("size", f"{format_size(run.weights.stat().st_size)} of {format_size(SizeBudget().limit)}")
    table.add_row("seconds", f"{time.monotonic() - start:.0f}")
    table.add_row("predictions", prediction)
    table.add_row("weights", str(run.weights))
    table.add_row("curves", f"{_program('tensorboard')} --logdir {RUNS}")
    Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    main()
