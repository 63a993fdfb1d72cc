"""Scores with their intervals, and comparisons of paired results."""
