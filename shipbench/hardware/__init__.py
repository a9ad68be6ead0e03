"""Devices, streams, precision, memory, determinism, and FLOP counts."""
