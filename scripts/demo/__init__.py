"""A tour of the commands on generated images."""
