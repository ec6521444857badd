"""``cbam100 report``: writes a page about a run."""

from scripts.report.command import report

__all__ = ["report"]
