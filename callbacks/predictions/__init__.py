"""What a model says of each image, and the files that hold it."""
