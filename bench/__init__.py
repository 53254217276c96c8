"""Measurements that anybody can run; figures go to docs/benchmarks.md."""
