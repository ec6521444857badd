"""``cbam100 benchmark``: measures how fast this project is."""

from scripts.benchmark.command import benchmark

__all__ = ["benchmark"]
