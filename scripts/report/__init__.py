"""``cbam100 report``: a run as a page."""
