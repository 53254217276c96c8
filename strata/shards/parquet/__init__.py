"""Parquet files of other programs, read in a process of its own: `rows.py` starts it, and `child.py` is its program."""

from __future__ import annotations

from strata.shards.parquet.rows import ParquetRow, parquet_images, parquet_rows, parquet_values

__all__ = ["ParquetRow", "parquet_images", "parquet_rows", "parquet_values"]
