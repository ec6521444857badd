"""``cbam100 serve``: answers HTTP requests with the classes of the images in them."""

from scripts.serve.command import serve

__all__ = ["serve"]
