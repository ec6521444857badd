"""``cbam100 ablate``: compares combinations of settings."""

from scripts.ablation.command import ablate

__all__ = ["ablate"]
