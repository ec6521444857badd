"""Run by torchrun: several commands in the same processes, so that libraries are imported once."""

import json
import os
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from scripts.main import main
from tests import narrow_resnet  # noqa: F401


def evaluate(*args: str) -> dict[str, float]:
    """Runs a command and returns the metrics of its table."""
    printed = StringIO()
    with redirect_stdout(printed):
        main(list(args))
    return {
        name: float(value) for name, value in re.findall(r"((?:val|test)/\w+)\s*│\s*([\d.e-]+)", printed.getvalue())
    }


def run(plan: dict) -> None:
    """Follows ``plan``: options of a fit, a model, folders to predict by name, and a folder for the results."""
    torch.set_num_threads(1)
    sys.argv = sys.argv[:1]
    output, distributed = Path(plan["output"]), plan["distributed"]
    results = {"validate": evaluate("validate", "--ckpt_path", plan["model"], *plan["data"], *distributed)}
    for name, options in plan["predict"].items():
        path = str(output / f"{name}.csv")
        main(
            ["predict", "--ckpt_path", plan["model"], *plan["data"], *options, *distributed, "--prediction.path", path]
        )
    if plan["fit"]:
        main(["fit", *distributed, *plan["fit"]])
    if int(os.environ.get("RANK", "0")) == 0:
        (output / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
