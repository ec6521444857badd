"""``cbam100 pack``: a data set of any form as a few large files instead of many small ones."""
