"""One spec to one record."""
