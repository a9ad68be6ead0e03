"""Execute one spec and produce one record."""
