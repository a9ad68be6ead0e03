"""VTAB-1k, read from its folder format and checked against the catalogue and against itself."""
