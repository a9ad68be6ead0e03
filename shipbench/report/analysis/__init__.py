"""Frames, scores and tests computed from the records; tables and figures only format them."""
