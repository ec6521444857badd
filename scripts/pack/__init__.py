"""``cbam100 pack``: writes a data set of any form as a few large files instead of many small ones."""

from scripts.pack.command import pack

__all__ = ["pack"]
