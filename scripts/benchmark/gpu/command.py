"""``cbam100 benchmark gpu``: runs each part in a process of its own, with a time limit, and writes the results."""

import hashlib
import json
import os
import signal
import subprocess
import tempfile
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
from scripts.benchmark.gpu import correctness, host_syncs, speed
from scripts.benchmark.gpu.bench import CONTEXT, GPU, PRELOADED, REHEARSAL, REPOSITORY, Bench, Sizes, enter
from scripts.benchmark.gpu.table import to_markdown

REPORT, TABLE, LOG = "gpu.json", "gpu.md", "logs.txt"
DONE, NO_TIME = "done", "had no time left"
# Packages that a container image with CUDA builds of torch and pytorch-lightning may lack.
WHEELS = ("jsonargparse", "typeshed-client", "docstring-parser", "captum", "filelock", "psutil")
DESCRIPTION = """\
Measures speed on a GPU and checks correctness there, in at most 6 minutes. Each part runs in its own process with its
own time limit, most important first, so that one that fails or hangs does not affect the others. Exits with 1 if a
check fails or a part does not finish."""
EPILOG = f"""\
Needs this checkout, torch, torchvision, pytorch-lightning and the other packages in setup.cfg. For a machine without a
package index, download what a CUDA image usually lacks on another machine, and copy the folder WHEELS over:

  python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --constraint constraints.txt \\
      --dest WHEELS {" ".join(WHEELS)}
  python -m pip install --no-index --no-deps --target SITE WHEELS/*.whl
  PYTHONPATH=SITE python -m scripts.main benchmark gpu --output DIR

Parts, in the order in which they run; those with a * only in a rehearsal or if --only names them, as they take another
6 minutes:
"""


@dataclass(frozen=True)
class Part:
    """A part of the benchmark: a function, whose docstring describes it in the help, and its limit in seconds."""

    function: Callable[[Bench], None]
    time_limit: float
    by_default: bool = True  # or with --only and in a rehearsal

    @property
    def name(self) -> str:
        """Name of the part for ``--only``."""
        return self.function.__name__


PARTS = (
    Part(speed.machine, 25),
    Part(speed.draw, 20),
    Part(speed.step, 40),
    Part(speed.infer, 15),
    Part(host_syncs.host_syncs, 25),
    Part(correctness.fit, 65),
    Part(correctness.deterministic, 45),
    Part(correctness.options, 45),
    Part(correctness.faults, 25),
    Part(correctness.tests, 55),
    Part(speed.files, 110, by_default=False),
    Part(speed.loader, 40, by_default=False),
    Part(speed.compiled_gates, 55, by_default=False),
    Part(speed.compiled_network, 110, by_default=False),
)
ALWAYS = ("machine", "draw")  # describe the machine and make the images for the others


def benchmark_gpu(words: Sequence[str]) -> None:
    """Runs ``cbam100 benchmark gpu`` with the words that follow it.

    Raises:
        UserError: An option is wrong.
        SystemExit: With 1 if a check failed or a part did not finish.
    """
    options = gpu_parser().parse_args(words)
    names = [part.name for part in PARTS]
    default = [part.name for part in PARTS if part.by_default or options.rehearse]
    wanted = options.only.split(",") if options.only else default
    if unknown := [name for name in wanted if name not in names]:
        raise UserError(f"there is no part {listed(unknown)} for --only: choose from {listed(names, limit=len(names))}")
    require_outside_splits(options.output, "--output")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the folder {options.output} ({error.strerror}): choose another --output"
        ) from error
    require_writable(options.output, "--output")
    for name in (REPORT, TABLE, LOG):
        require_replaceable(options.output / name, BENCHMARK, "--output")
    parts = [part for part in PARTS if part.name in (*ALWAYS, *wanted)]
    if not run_parts(parts, options.output, REHEARSAL if options.rehearse else GPU):
        raise SystemExit(1)


def gpu_parser() -> Arguments:
    """Returns the parser of the command."""
    parts = "\n".join(f"  {part.name + '*' * (not part.by_default):<18}{part.function.__doc__}" for part in PARTS)
    parser = Arguments(
        prog="cbam100 benchmark gpu", description=DESCRIPTION, epilog=EPILOG + parts,
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    into = f"folder for {REPORT}, {TABLE} and {LOG}; created if missing"
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help=into)
    rehearse = "run every part at small sizes on the CPU, to try the benchmark itself"
    parser.add_argument("--rehearse", action="store_true", help=rehearse)
    only = f"run only these parts, comma-separated ({' and '.join(ALWAYS)} always run)"
    parser.add_argument("--only", metavar="PART,...", help=only)
    return parser


def run_parts(parts: Sequence[Part], output: Path, sizes: Sizes) -> bool:
    """Runs the parts in turn, writes the results to ``output`` after each, and returns whether all succeeded."""
    end = time.monotonic() + sizes.time_limit
    CONTEXT.set_forkserver_preload(PRELOADED)
    # Python 3.12 looks for preloaded modules only there.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = CONTEXT.Process(target=int)  # so that no part waits for its imports
    server.start()
    server.join()
    results: list[dict[str, Any]] = []
    about: dict[str, Any] = {"benchmark": "gpu", "rehearsal": sizes.device == "cpu", "commit": _commit()}
    about |= {"sources": _sources(), "machine": {}, "versions": versions()}
    log = f"cbam100 benchmark gpu, commit {about['commit']}\n"
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            shared, own = Path(folder), Path(folder) / part.name
            own.mkdir()
            limit = min(sizes.patience * part.time_limit, end - time.monotonic())
            start = time.monotonic()
            status = _run(part, Bench(own, shared, sizes), limit) if limit > 1 else NO_TIME
            found: dict[str, Any] = {kind: _records(own, kind) for kind in ("checks", "figures")}
            results.append({"part": part.name, "status": status, "seconds": time.monotonic() - start, **found})
            about["machine"] |= {fact["fact"]: fact["value"] for fact in _records(own, "facts")}
            log += f"\n{'=' * 20} {part.name}: {status}\n{_text(own / 'log.txt')}"
            print(_line(results[-1]), flush=True)
            rows = [{"part": result["part"], **figure} for result in results for figure in result["figures"]]
            write_json(output / REPORT, {**about, "parts": results, "rows": rows})
            write_bytes(output / TABLE, to_markdown(about, results).encode())
            write_bytes(output / LOG, log.encode(errors="backslashreplace"))
    if left_out := ",".join(result["part"] for result in results if result["status"] == NO_TIME):
        rehearse = " --rehearse" if about["rehearsal"] else ""
        print(f"To run what had no time left: cbam100 benchmark gpu --output ANOTHER_DIR{rehearse} --only {left_out}")
    return all(result["status"] == DONE and all(x["passed"] for x in result["checks"]) for result in results)


def _run(part: Part, bench: Bench, limit: float) -> str:
    process = CONTEXT.Process(target=_run_part, args=(part.function, bench))
    process.start()
    try:
        ended = wait([process.sentinel], limit)
    finally:
        with suppress(ProcessLookupError):  # with its commands, as one may hang
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    if not ended:
        return f"was stopped after {limit:.0f} s"
    last = (_text(bench.folder / "log.txt").strip().splitlines() or ["it said nothing"])[-1]
    return DONE if process.exitcode == 0 else f"failed with {process.exitcode}: {last[:300]}"


def _run_part(function: Callable[[Bench], None], bench: Bench) -> None:
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
    checks, figures = result["checks"], result["figures"]
    failed = [x["check"] for x in checks if not x["passed"]]
    counts = [f"{len(checks) - len(failed)} of {len(checks)} checks passed"] if checks else []
    counts += [f"{len(figures)} figures"] if figures else []
    counts += [f"{result['seconds']:.0f} s", *(f"FAILED: {name}" for name in failed)]
    return f"{result['part']}: {result['status']}, {', '.join(counts)}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _commit() -> str:
    if not (REPOSITORY / ".git").exists():  # git would look in the folders above
        return "unknown (not a git checkout)"
    words = ["git", "-C", str(REPOSITORY), "-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run([*words, "--exclude=*"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown (git failed)"


def _sources() -> str:
    """Hashes the source code, which identifies it without git too."""
    digest = hashlib.sha256()
    for package in ("lightning_modules", "datamodules", "callbacks", "scripts"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            digest.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
