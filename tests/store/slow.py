"""A store in this process whose calls take a while and are noted."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from bench.fakes.slow_store import SCHEME, SlowFileSystem
from strata.store.store import Store


def slow_store(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> Store:
    """A store of so many seconds a call, which notes its calls in folder/calls."""
    (folder / "calls").mkdir()
    monkeypatch.setenv("SLOW_STORE_SECONDS", str(seconds))
    monkeypatch.setenv("SLOW_STORE_CALLS", str(folder / "calls"))
    # fsspec looks for plug-ins once, at its import; and it keeps one file system for equal arguments
    fsspec.register_implementation(SCHEME, SlowFileSystem, clobber=True)
    SlowFileSystem.clear_instance_cache()
    return Store(f"{SCHEME}://{folder}/store")
