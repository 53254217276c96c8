"""Snapshots: immutable, named selections of rows."""
