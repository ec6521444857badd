"""``cbam100 export``: writes a file that others run, once it has been shown to answer as the checkpoint does."""

from scripts.export.command import export

__all__ = ["export"]
