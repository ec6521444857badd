"""This project's version. Imports no library, since ``cbam100 --version`` runs this file by itself."""

from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path


def version() -> str:
    """Returns the installed version, or in a checkout that is not installed the one in ``setup.cfg``."""
    try:
        return installed("cbam100")
    except PackageNotFoundError:
        setup = ConfigParser()
        setup.read(Path(__file__).parents[2] / "setup.cfg")
        return setup.get("metadata", "version", fallback="unknown")
