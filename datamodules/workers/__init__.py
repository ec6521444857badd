"""Processes that load and decode images: how many, how they take signals and how they end."""
