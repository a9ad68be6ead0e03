"""Costs: the steps of every method against the bare backbone, and whole runs from image files to the stored record."""
