"""The ``cbam100`` command. Imports next to nothing: ``--help`` must not wait for the libraries."""

import sys
from typing import TYPE_CHECKING

from scripts.threads import limit_spinning

if TYPE_CHECKING:
    from pytorch_lightning.cli import ArgsType

COMMANDS = {
    "audit": "look at every file of a data set and say what would stop a run",
    "fit": "train; the run folder is runs/<name>/version_<k>/",
    "validate": "measure a checkpoint on ROOT/val",
    "test": "measure a checkpoint on ROOT/test/<class>/",
    "predict": "write prediction.csv and prediction.zip for the images of ROOT/test",
    "explain": "draw where a checkpoint looks in your images",
    "report": "write report.html of a run folder",
    "ablate": "fit combinations of settings with several seeds, and compare",
    "benchmark": "measure speed and memory on this machine",
}
HELP = """usage: cbam100 COMMAND [options]

Trains, checks and ships an image classifier of at most 100 MB.

{commands}

cbam100 COMMAND --help lists the options. To begin: cbam100 fit --data.root ROOT
cbam100 --version prints the version."""


def main(args: "ArgsType" = None) -> None:
    """Runs ``cbam100``.

    Args:
        args: As on the command line, which is where they come from by default.

    Raises:
        SystemExit: As ``scripts.process.run``; with 0 after ``--help`` and ``--version``.
    """
    words = sys.argv[1:] if args is None else args
    if isinstance(words, list) and words[:1] in (["-h"], ["--help"]):
        print(HELP.format(commands="\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())))
        raise SystemExit(0)
    if isinstance(words, list) and words[:1] == ["--version"]:
        import runpy
        from pathlib import Path

        # By its path, since importing it from its package would import torch.
        file = Path(__file__).parents[1] / "callbacks" / "run" / "version.py"
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
