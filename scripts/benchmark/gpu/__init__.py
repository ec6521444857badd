"""``cbam100 benchmark gpu``: everything that is to be known of this project on a GPU, in a few minutes."""
