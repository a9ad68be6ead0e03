"""Formats of image data sets: one module per format, each a ``ListedSource``."""
