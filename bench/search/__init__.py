"""Measures the search over made-up rows."""
