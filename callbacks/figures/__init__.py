"""Figures of a run, and when they are drawn."""
