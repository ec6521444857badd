"""Atomic files, locks, CSV cells and the error type: code that knows nothing of images."""
