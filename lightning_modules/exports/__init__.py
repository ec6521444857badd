"""Files that run without this project: how they are written, what they say about themselves, and how they are run."""
