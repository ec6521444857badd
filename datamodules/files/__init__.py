"""Files, cells and errors: what knows nothing of images."""
