"""The forms in which people have their images; each gives an image the same name, so that all are the same data set."""
