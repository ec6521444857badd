"""Metrics that are equal to the last bit for any number of processes."""
