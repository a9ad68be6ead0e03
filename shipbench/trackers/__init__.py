"""Experiment trackers: they follow the events of a plan, and no run depends on them."""
