"""``cbam100 explain``: where a model looks."""

from scripts.explain.command import explain

__all__ = ["explain"]
