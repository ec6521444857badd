"""``cbam100 benchmark``: how fast this project is."""
