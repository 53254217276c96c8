"""What pyarrow imports only when it is first used: done at the start of a service or a worker, and without pandas."""

from __future__ import annotations

import importlib
import sys

import pyarrow as pa


class _WithoutPandas:
    """A finder of modules for which pandas is not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def without_pandas() -> None:
    """Let pyarrow find no pandas.

    It looks for pandas at its first array, to recognize pandas' own objects, which Strata never gives it. Here it finds
    none, which saves 0.3 s and 50 MiB in each process. A later `to_pandas` looks again, and imports it.
    """
    finder = _WithoutPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([""])
    finally:
        sys.meta_path.remove(finder)


def import_ahead() -> None:
    """Import what the first array and the first read need, so that the first job does not wait for it."""
    without_pandas()
    importlib.import_module("pyarrow.dataset")
