"""Figures of a report: each is a function of a suite view."""
