"""``cbam100 ablate``: compares settings."""

from scripts.ablation.command import ablate

__all__ = ["ablate"]
