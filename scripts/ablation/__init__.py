"""``cbam100 ablate``: combinations of settings, compared."""
