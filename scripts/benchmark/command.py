"""``cbam100 benchmark``: measures how fast this project is on this machine, beside baselines."""

import multiprocessing
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from rich.console import Console
from rich.table import Table

from callbacks.run.manifest import versions, write_json
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import BENCHMARK, require_replaceable
from datamodules.split_names import require_outside_splits
from datamodules.workers.cpus import available_cpus
from lightning_modules.network.compilation import Compile
from lightning_modules.network.resnet_cbam import AttentionPlacement
from scripts.arguments import Arguments
from scripts.benchmark.input import benchmark_input
from scripts.benchmark.step import benchmark_step
from scripts.hardware import default_precision

What = Literal["step", "input", "busy"]


def benchmark(
    what: What,
    *,
    json: str | Path | None = None,
    baseline: str | Path | None = None,
    options: Sequence[str] = (),
    root: str | Path | None = None,
    image_size: int | None = None,
    batch_size: int = 16,
    attention_placement: AttentionPlacement = "stage",
    compile: Compile = "none",
    precision: Literal["32-true", "bf16-mixed"] | None = None,
    rounds: int = 3,
    steps: int = 5,
    images: int = 400,
) -> dict[str, Any]:
    """Measures how fast this project is on this machine, beside baselines.

    Example:
        >>> benchmark("step", image_size=64)["train_images_per_s"]  # doctest: +SKIP
        55.1

    Args:
        what: Benchmark to run: step times a training step and an inference, input the reading of images, busy a
            training step beside processes that keep the cores busy.
        json: JSON file for the figures.
        baseline: Python script to compare with, whose commands step and input print a line of JSON (see
            docs/performance.md).
        options: Options of fit, OPTION=VALUE, whose cost in a training step is measured instead; several that belong
            together in one text, separated by blanks. May be repeated.
        root: Folder that holds train, whose images input reads.
        image_size: Side of an image, in pixels; by default 224, and 64 for busy.
        batch_size: Number of images per step.
        attention_placement: Where the network has CBAM modules.
        compile: Which parts of the network torch.compile compiles.
        precision: Precision of the arithmetic; by default chosen for this machine.
        rounds: Number of rounds, in each of which all contenders take a turn.
        steps: Number of steps per turn, for step and busy.
        images: Number of images to read, for input.

    Returns:
        Single figures by name, ``rows`` of the table, ``machine`` and ``versions``.

    Raises:
        UserError: An argument is wrong, or the baseline fails.
    """
    if what not in get_args(What):
        raise UserError(f"there is no benchmark {what}: choose one of {listed(list(get_args(What)))}")
    json, baseline, root = (None if path is None else Path(path) for path in (json, baseline, root))
    image_size = (64 if what == "busy" else 224) if image_size is None else image_size
    precision = precision or default_precision("auto")
    if what == "input" and not (root and root.is_dir()):
        raise UserError(f"input needs --data.root, the folder that holds train, got {root}: check the path")
    numbers = {"batch_size": batch_size, "rounds": rounds, "steps": steps, "images": images, "image_size": image_size}
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}: pass a larger number")
    if options and (what != "step" or baseline):
        raise UserError("--with adds options to the fit whose step is timed: use it with step, and without --baseline")
    if json:
        require_writable(json.parent, "--json")
        require_outside_splits(json.parent, "--json", root)
        require_replaceable(json, BENCHMARK, "--json")
    match what:
        case "step" if options:
            from scripts.benchmark.fit_step import benchmark_options  # which its processes run as a program

            values: dict[str, Any] = {"size": image_size, "batch": batch_size, "precision": precision}
            shared = [f"--data.image_size={image_size}", f"--model.attention_placement={attention_placement}"]
            shared += [f"--model.compile={compile}", f"--trainer.precision={precision}"]
            rows = benchmark_options(shared, options, batch_size, rounds=rounds, steps=steps)
        case "step":
            rows, values = benchmark_step(
                image_size, batch_size, precision, attention_placement=attention_placement, compile=compile,
                rounds=rounds, steps=steps, baseline=baseline,
            )  # fmt: skip
        case "input" if root:
            rows, values = benchmark_input(root, image_size, images=images, rounds=rounds, baseline=baseline)
        case _:
            # Imported late, as its processes run that module as a program.
            from scripts.benchmark.busy import benchmark_busy

            rows, values = benchmark_busy(image_size, batch_size, precision, rounds=rounds, steps=steps)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"gpu": gpu, "cpu": platform.processor() or platform.machine(), "cores": available_cpus()}
    values |= {"benchmark": what, "machine": machine, "versions": versions(), "rows": rows}
    if json:
        write_json(json, values)
    return values


def main(words: list[str]) -> None:
    """Runs ``cbam100 benchmark`` and prints the figures."""
    if words[:1] == ["gpu"]:
        if "forkserver" not in multiprocessing.get_all_start_methods():
            raise UserError("benchmark gpu forks its commands, which this system cannot: run it on Linux, or WSL")
        from scripts.benchmark.gpu.command import benchmark_gpu

        benchmark_gpu(words[1:])
    else:
        _print(benchmark(**vars(benchmark_parser().parse_args(words))))


def benchmark_parser() -> Arguments:
    """Returns the parser of the command."""
    parser = Arguments(
        prog="cbam100 benchmark", epilog="To measure everything on a GPU, see cbam100 benchmark gpu --help."
    )
    spelled = {name: f"--data.{name}" for name in ("root", "image_size", "batch_size")}
    spelled |= {name: f"--model.{name}" for name in ("attention_placement", "compile")}
    spelled |= {"what": "what", "options": "--with", "precision": "--trainer.precision"}
    parser.add_parameters(benchmark, spelled=spelled, metavars={"options": "'OPTION=VALUE ...'"})
    return parser


def _print(figures: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    columns = list(dict.fromkeys(name for row in figures["rows"] for name in row))
    table = Table(*columns)
    for row in figures["rows"]:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    console.print(table)
    for name, value in figures.items():
        if not isinstance(value, dict | list):
            console.print(f"{name}: {_cell(value)}")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
