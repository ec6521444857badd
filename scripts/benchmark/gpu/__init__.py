"""``cbam100 benchmark gpu``: checks this project on a GPU and measures its speed, in a few minutes."""
