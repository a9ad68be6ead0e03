"""What can be found out about a copy of the data: counts, splits, leaks, fingerprints."""
