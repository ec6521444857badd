"""``cbam100 report``: a run as a page."""

from scripts.report.command import report

__all__ = ["report"]
