"""The command: every part in a process of its own, for a limited time, and the files that say what came of it."""

import json
import os
import signal
import subprocess
import tempfile
import textwrap
import time
import traceback
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from callbacks.run.manifest import versions, write_json
from datamodules.files.atomic_file import require_writable, write_bytes
from datamodules.files.errors import UserError, listed
from datamodules.files.own_files import BENCHMARK, require_replaceable
from datamodules.split_names import require_outside_splits
from scripts.arguments import Arguments
from scripts.benchmark.gpu import correctness, speed
from scripts.benchmark.gpu.bench import CONTEXT, GPU, PRELOADED, REHEARSAL, Bench, Sizes, enter
from scripts.benchmark.gpu.table import to_markdown

REPORT, TABLE, LOG = "gpu.json", "gpu.md", "logs.txt"
# What CUDA builds of torch and pytorch-lightning do not bring along.
WHEELS = ("jsonargparse", "typeshed-client", "docstring-parser", "captum")
HELP = f"""\
Beside this folder it needs torch, torchvision, pytorch-lightning and what else setup.cfg lists. Where those are but no
package index is, collect the rest elsewhere and carry the folder WHEELS along:

  python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --constraint constraints.txt --dest WHEELS
      {" ".join(WHEELS)}
  python -m pip install --no-index --no-deps --target SITE WHEELS/*.whl
  PYTHONPATH=SITE python -m scripts.main benchmark gpu --output DIR

Parts, in their order: """


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        function: What it does.
        seconds: It may take.
    """

    function: Callable[[Bench], None]
    seconds: float

    @property
    def name(self) -> str:
        """As ``--only`` has it."""
        return self.function.__name__


PARTS = (
    Part(speed.machine, 30),
    Part(speed.draw, 60),
    Part(correctness.fit, 90),
    Part(correctness.deterministic, 90),
    Part(correctness.options, 90),
    Part(correctness.faults, 60),
    Part(correctness.tests, 120),
    Part(speed.step, 90),
    Part(speed.predict, 30),
    Part(speed.files, 150),
    Part(speed.waits, 30),
    Part(speed.loader, 60),
    Part(speed.compiled_gates, 90),
    Part(speed.compiled_network, 240),
)
ALWAYS = ("machine", "draw")  # the others' measure and images


def benchmark_gpu(words: Sequence[str]) -> None:
    """Runs the command.

    Args:
        words: What stands after ``benchmark gpu``.

    Raises:
        UserError: An option is wrong.
        SystemExit: With 1 where a check did not hold, or a part failed or had no time.
    """
    options = gpu_parser().parse_args(words)
    names = [part.name for part in PARTS]
    wanted = options.only.split(",") if options.only else names
    if unknown := [name for name in wanted if name not in names]:
        raise UserError(f"expected --only of {listed(names)}, got {listed(unknown)}: choose of these")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"expected --output to be a folder, {options.output} is not ({error.strerror})") from error
    require_writable(options.output, "--output")
    require_outside_splits(options.output, "--output")
    for name in (REPORT, TABLE, LOG):
        require_replaceable(options.output / name, BENCHMARK, "--output")
    sizes = REHEARSAL if options.rehearse else GPU
    parts = [part for part in PARTS if part.name in (*ALWAYS, *wanted)]
    if not run_parts(parts, options.output, sizes):
        raise SystemExit(1)


def gpu_parser() -> Arguments:
    """The options of the command."""
    parts = textwrap.fill(", ".join(part.name for part in PARTS), 110)
    parser = Arguments(
        prog="cbam100 benchmark gpu", description=__doc__, epilog=HELP + parts,
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=f"gets {REPORT}, {TABLE} and {LOG}")
    parser.add_argument("--rehearse", action="store_true", help="every part at small sizes, on the CPU")
    parser.add_argument("--only", metavar="PART,...", help="these parts, and what they need")
    return parser


def run_parts(parts: Sequence[Part], output: Path, sizes: Sizes) -> bool:
    """Runs the parts one after another and writes what they found, after each; returns whether all is well.

    Args:
        parts: To run, the most important first: for the last there may be no time left.
        output: A folder.
        sizes: Of the work.
    """
    CONTEXT.set_forkserver_preload(PRELOADED)
    end = time.monotonic() + sizes.seconds
    results: list[dict[str, Any]] = []
    about: dict[str, Any] = {"benchmark": "gpu", "rehearsal": sizes.device == "cpu", "commit": _commit()}
    about |= {"machine": {}, "versions": versions()}
    log = [f"cbam100 benchmark gpu, commit {about['commit']}\n"]
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            shared, own = Path(folder), Path(folder) / part.name
            own.mkdir()
            limit = min(part.seconds, end - time.monotonic())
            start = time.monotonic()
            state = _run(part, Bench(own, shared, sizes), limit) if limit > 1 else "had no time left"
            found: dict[str, Any] = {kind: _records(own, kind) for kind in ("checks", "figures")}
            results.append({"part": part.name, "state": state, "seconds": time.monotonic() - start, **found})
            about["machine"] |= {fact["fact"]: fact["value"] for fact in _records(own, "facts")}
            log.append(f"\n{'=' * 20} {part.name}: {state}\n{_text(own / 'log.txt')}")
            print(_line(results[-1]), flush=True)
            _write(output, about, results, "".join(log))
    left_out = [result["part"] for result in results if result["state"] == "had no time left"]
    if left_out:
        print(f"what had no time: cbam100 benchmark gpu --output ANOTHER_DIR --only {','.join(left_out)}")
    return all(result["state"] == "done" and all(x["held"] for x in result["checks"]) for result in results)


def _run(part: Part, bench: Bench, limit: float) -> str:
    process = CONTEXT.Process(target=_follow, args=(part.function, bench))
    process.start()
    try:
        ended = wait([process.sentinel], limit)
    finally:
        with suppress(ProcessLookupError):  # its commands too, of which one may hang
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    if not ended:
        return f"was stopped after {limit:.0f} s"
    return "done" if process.exitcode == 0 else f"failed with {process.exitcode}: {_last_line(bench.folder)}"


def _follow(function: Callable[[Bench], None], bench: Bench) -> None:
    os.setpgid(0, 0)  # so that it can be killed with its commands
    enter(bench.folder, "log.txt")
    try:
        function(bench)
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(1) from error


def _records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _text(folder / f"{kind}.jsonl").splitlines()]


def _line(result: dict[str, Any]) -> str:
    broken = [x["check"] for x in result["checks"] if not x["held"]]
    held = f"{len(result['checks']) - len(broken)} of {len(result['checks'])} checks held"
    counts = [held] if result["checks"] else []
    counts += [f"{len(result['figures'])} figures"] if result["figures"] else []
    counts += [f"{result['seconds']:.0f} s", *(f"NOT: {name}" for name in broken)]
    return f"{result['part']}: {result['state']}, {', '.join(counts)}"


def _write(output: Path, about: dict[str, Any], results: list[dict[str, Any]], log: str) -> None:
    rows = [{"part": result["part"], **figure} for result in results for figure in result["figures"]]
    write_json(output / REPORT, {**about, "parts": results, "rows": rows})
    write_bytes(output / TABLE, to_markdown(about, results).encode())
    write_bytes(output / LOG, log.encode(errors="backslashreplace"))


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _last_line(folder: Path) -> str:
    return (_text(folder / "log.txt").strip().splitlines() or ["it said nothing"])[-1][:300]


def _commit() -> str:
    try:
        words = ["git", "-C", str(correctness.REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown, for this is no git checkout"
