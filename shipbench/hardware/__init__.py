"""Devices, precision, memory, determinism, and FLOP counts."""
