"""The tour, and the images that it draws."""
