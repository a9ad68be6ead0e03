"""Fit and evaluate: schedules, the training loop, and its stacked twin."""
