"""``cbam100 ablate``: combinations of settings, compared."""

from scripts.ablation.command import ablate

__all__ = ["ablate"]
