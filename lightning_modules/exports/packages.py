"""Packages that only exports need, and that this project does without."""

import importlib
from types import ModuleType

from datamodules.files.errors import UserError


def require(package: str, extra: str) -> ModuleType:
    """Imports a package of one of the extras in ``setup.cfg``.

    Raises:
        UserError: It is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} cannot be imported ({error}): pip install 'cbam100[{extra}]'") from error
