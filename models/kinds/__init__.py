"""Kinds: the closed vocabulary of COCO's detectors, and what follows from it."""
