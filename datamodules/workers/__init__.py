"""Processes that load images, and how many."""
