"""Recipes that train the demo's small models from the demo world."""
