"""The ``cbam100`` command. Imports next to nothing, so that ``--help`` does not wait for the libraries."""

import sys
from typing import TYPE_CHECKING

from scripts.environment import limit_spinning

if TYPE_CHECKING:
    from pytorch_lightning.cli import ArgsType

COMMANDS = {
    "audit": "check every file of a data set for what would stop a run",
    "pack": "write a data set of any form as tar files, for disks that small files slow down",
    "fit": "train a classifier; writes to runs/<name>/version_<k>/",
    "validate": "evaluate a checkpoint on ROOT/val",
    "test": "evaluate a checkpoint on ROOT/test/<class>/",
    "predict": "write prediction.csv and prediction.zip for the images of ROOT/test",
    "export": "write a checked file that runs without this project: ONNX, OpenVINO, safetensors",
    "serve": "classify images over HTTP, with a page to drop them on",
    "compare": "tell where two predictions differ, and which is right",
    "explain": "draw attention maps of a checkpoint over images",
    "report": "write report.html, a page about a run, to its folder",
    "ablate": "train several settings with several seeds, and compare them",
    "benchmark": "measure speed and memory on this machine",
}
HELP = """usage: cbam100 COMMAND [options]

Trains, evaluates and exports an image classifier of at most 100 MB.

{commands}

cbam100 COMMAND --help lists its options. To start: cbam100 fit --data.root ROOT
cbam100 --version prints the version."""


def main(args: "ArgsType" = None) -> None:
    """Runs ``cbam100`` with ``args``, which by default are those of the command line.

    Raises:
        SystemExit: With 0 after ``--help`` and ``--version``; otherwise as ``scripts.process.run`` raises it.
    """
    words = sys.argv[1:] if args is None else args
    if isinstance(words, list) and words[:1] in (["-h"], ["--help"]):
        print(HELP.format(commands="\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())))
        raise SystemExit(0)
    if isinstance(words, list) and words[:1] == ["--version"]:
        import runpy
        from pathlib import Path

        # By its path, as importing its package would import torch.
        file = Path(__file__).parents[1] / "datamodules" / "files" / "version.py"
        print("cbam100", runpy.run_path(str(file))["version"]())
        raise SystemExit(0)
    if isinstance(words, list) and words and not words[0].startswith("-") and words[0] not in COMMANDS:
        print(f"cbam100: error: there is no command {words[0]}: choose {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    limit_spinning()
    try:
        from scripts.process import run
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error
    run(args)


if __name__ == "__main__":
    main()
