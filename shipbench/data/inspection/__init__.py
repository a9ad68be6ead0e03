"""Verification of a task's data, its summary in numbers, and its contact sheet."""
