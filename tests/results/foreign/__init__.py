"""Tests of the readers of other harnesses."""
