"""Weights in files, and what they are worth."""
