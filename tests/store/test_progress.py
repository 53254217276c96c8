"""Rows that are kept of chunks: who has some is known by one listing of a shard's folder a second."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from strata.store import ProgressListing, Store, progress, remove_progress, write_progress
from tests.queue.requests import chunk
from tests.store.test_parts import rows


def test_chunks_of_a_shard_cost_one_listing_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [100.0], Counter[str]()
    monkeypatch.setattr("strata.store.progress.time.monotonic", lambda: now[0])

    class Counted(Store):
        def names(self, folder: str, *prefixes: str) -> list[str]:
            calls[folder] += 1
            return super().names(folder, *prefixes)

    store = Counted(str(tmp_path))
    write_progress(store, chunk(3), {0: rows()[0]})
    listing = ProgressListing(store)
    assert [number for number in range(100) if listing.has(chunk(number))] == [3]
    assert sum(calls.values()) == 1
    # another shard, another attempt
    assert not listing.has(replace(chunk(3), identity="b" * 16))
    assert not listing.has(replace(chunk(3), attempt=1))
    assert sum(calls.values()) == 3
    # what is kept or removed later is seen after a second
    write_progress(store, chunk(4), {0: rows()[0]})
    remove_progress(store, chunk(3))
    assert not listing.has(chunk(4)) and listing.has(chunk(3))
    now[0] += progress.LISTED_SECONDS
    assert listing.has(chunk(4)) and not listing.has(chunk(3))
