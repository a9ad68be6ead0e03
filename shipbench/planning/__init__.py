"""Which runs a command means."""
