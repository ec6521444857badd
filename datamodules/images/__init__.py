"""Finding, reading, transforming and caching images."""
