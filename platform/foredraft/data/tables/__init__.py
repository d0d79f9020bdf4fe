"""A table as people have it: its format, its columns, its cells, its layout."""
