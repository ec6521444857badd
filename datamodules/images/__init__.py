"""Photos: found, read, transformed, and kept decoded."""
