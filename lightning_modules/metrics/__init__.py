"""Metrics that any number of processes computes to the same digits."""
