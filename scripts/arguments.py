"""Options of the subcommands that are not LightningCLI's."""

import argparse
from typing import NoReturn

from datamodules.files.errors import UserError


class Arguments(argparse.ArgumentParser):
    """Says in one sentence what is wrong with a command, where argparse prints a page."""

    def error(self, message: str) -> NoReturn:
        """Raises ``UserError``."""
        raise UserError(f"{message}: {self.prog} --help lists the options")
