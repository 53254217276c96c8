"""What all scripts are told on their command lines. It imports only the standard library."""

from __future__ import annotations

import argparse
from pathlib import Path


def options(description: str | None) -> argparse.Namespace:
    """What a script is told; its folders are made."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--shards", type=Path, required=True, help="folder with tars")
    parser.add_argument("--out", type=Path, required=True, help="folder for Parquet files: key, caption")
    parser.add_argument("--calls", type=Path, required=True, help="folder for the notes of calls")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.0, help="what an image costs")
    parser.add_argument("--demo", action="store_true", help="the demo's real stages")
    given = parser.parse_args()
    for folder in (given.out, given.calls):
        folder.mkdir(parents=True, exist_ok=True)
    return given
