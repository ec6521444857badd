"""``cbam100 explain``: draws where a network looks in each image."""

from scripts.explain.command import explain

__all__ = ["explain"]
