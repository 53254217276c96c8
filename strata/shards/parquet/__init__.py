"""Parquet files of other programs, read in a process of its own: `rows.py` starts it, and `child.py` is its program."""

from __future__ import annotations

from strata.shards.parquet.rows import parquet_rows

__all__ = ["parquet_rows"]
