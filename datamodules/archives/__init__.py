"""Tar files and stored zip files, indexed without unpacking them; ``images/location`` reads their members in place."""
