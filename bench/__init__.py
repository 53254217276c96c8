"""Reproducible measurements; their figures are in docs/benchmarks.md."""
