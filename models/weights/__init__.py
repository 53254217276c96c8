"""Weights: where they are stored, how they are fetched and checked."""
