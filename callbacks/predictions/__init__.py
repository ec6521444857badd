"""Predictions of every image, and the files that hold them."""
