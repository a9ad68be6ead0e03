"""Device, precision, memory, determinism and the count of operations."""
