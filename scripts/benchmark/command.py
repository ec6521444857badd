"""``cbam100 benchmark``: how fast this project is on this machine, beside stated baselines."""

import platform
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.table import Table

from callbacks.run.manifest import versions, write_json
from datamodules.files.atomic_file import require_writable
from datamodules.files.errors import UserError
from datamodules.files.own_files import BENCHMARK, require_replaceable
from datamodules.split_names import require_outside_splits
from datamodules.workers.cpus import available_cpus
from lightning_modules.network.compilation import Compile
from lightning_modules.network.resnet_cbam import AttentionPlacement
from scripts.arguments import Arguments
from scripts.benchmark.busy import benchmark_busy
from scripts.benchmark.input import benchmark_input
from scripts.benchmark.memory import benchmark_memory
from scripts.benchmark.step import benchmark_step
from scripts.benchmark.whole_commands import benchmark_fit, benchmark_predict
from scripts.hardware import default_precision

BENCHMARKS = {
    "step": benchmark_step,
    "input": benchmark_input,
    "predict": benchmark_predict,
    "fit": benchmark_fit,
    "memory": benchmark_memory,
    "busy": benchmark_busy,
}


def benchmark(words: list[str]) -> None:
    """Runs the command.

    Args:
        words: What stands after ``benchmark``.

    Raises:
        UserError: An option is wrong, or a command that is measured fails.
    """
    if words[:1] == ["gpu"]:
        from scripts.benchmark.gpu.command import benchmark_gpu

        benchmark_gpu(words[1:])
        return
    options = benchmark_parser().parse_args(words)
    if options.what in ("input", "predict", "fit") and not (options.root and options.root.is_dir()):
        raise UserError(f"expected --data.root to be a folder, there is none at {options.root}: check the path")
    for name in ("batch_size", "rounds", "steps", "images", "max_epochs", "image_size"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"expected --{name} of at least 1, got {value}: give a larger number")
    if options.json:
        require_writable(options.json.parent, "--json")
        require_outside_splits(options.json.parent, "--json", options.root)
        require_replaceable(options.json, BENCHMARK, "--json")
    options.image_size = options.image_size or (64 if options.what in ("fit", "busy") else 224)
    options.rounds = options.rounds or (1 if options.what == "fit" else 3)
    rows, values = BENCHMARKS[options.what](options)
    values |= {"benchmark": options.what, "machine": _machine(), "versions": versions()}
    if options.json:
        write_json(options.json, {**values, "rows": rows})
    _print(rows, values)


def benchmark_parser() -> Arguments:
    """The options of the command."""
    parser = Arguments(
        prog="cbam100 benchmark",
        description=__doc__,
        epilog="For checks and measurements on a GPU, see cbam100 benchmark gpu --help.",
    )
    parser.add_argument("what", choices=BENCHMARKS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--baseline", type=Path,
        help="a script whose commands step, input and fit print a line of JSON, to compare with (see README)",
    )  # fmt: skip
    parser.add_argument("--data.root", dest="root", type=Path, help="for input, predict and fit")
    parser.add_argument("--data.image_size", dest="image_size", type=int, help="pixels (224; 64 for fit and busy)")
    parser.add_argument("--data.batch_size", dest="batch_size", type=int, default=16)
    parser.add_argument("--data.cache", dest="cache", choices=("none", "ram", "disk"), default="none", help="for fit")
    parser.add_argument("--model.attention_placement", dest="attention_placement", default="stage",
                        choices=get_args(AttentionPlacement))  # fmt: skip
    parser.add_argument("--model.compile", dest="compile", choices=get_args(Compile), default="none")
    parser.add_argument("--trainer.precision", dest="precision", choices=("32-true", "bf16-mixed"),
                        default=default_precision("auto"), help="by default this machine's")  # fmt: skip
    parser.add_argument("--trainer.max_epochs", dest="max_epochs", type=int, default=6, help="for fit")
    parser.add_argument("--rounds", type=int, help="how often all take turns (3; 1 for fit)")
    parser.add_argument("--steps", type=int, default=5, help="steps of each turn, for step and busy")
    parser.add_argument("--images", type=int, default=400, help="how many images, for input")
    return parser


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"gpu": gpu, "cpu": platform.processor() or platform.machine(), "cores": available_cpus()}


def _print(rows: list[dict[str, Any]], values: dict[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    console.print(table)
    for name, value in values.items():
        if not isinstance(value, dict | list):
            console.print(f"{name}: {_cell(value)}")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
