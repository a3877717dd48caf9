"""Predictions with uncertainty, and measures of how good they are."""
