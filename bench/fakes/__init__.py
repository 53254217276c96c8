"""Fake stages and groups, for tests and for measurements of load: they use no models."""
