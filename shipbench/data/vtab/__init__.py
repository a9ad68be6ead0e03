"""VTAB-1k in its folder format."""
