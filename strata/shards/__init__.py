"""Shards: patterns, tars, folders and lists, and the index of each."""
