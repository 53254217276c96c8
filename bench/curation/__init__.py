"""Measurements of curation: duplicates that were planted among scenes, and embeddings that are near each other."""
