"""Recipes, schedules, and the training loop."""
