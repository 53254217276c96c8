"""The slow store of the measurements: it behaves as a store, takes its time, and notes its calls."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.fakes.slow_store import Call, calls_in, chain
from strata.store.store import Store
from tests.store.slow import slow_store


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of 20 ms a call, which notes its calls in tmp_path/calls."""
    return slow_store(tmp_path, monkeypatch, 0.02)


def test_it_keeps_and_finds_files_and_notes_each_call(slow: Store, tmp_path: Path) -> None:
    start = time.monotonic()
    slow.put(slow.path("open", "a"), b"one")
    assert slow.get(slow.path("open", "a")) == b"one"
    assert slow.exists(slow.path("open", "a")) and not slow.exists(slow.path("open", "b"))
    assert slow.names("open") == ["a"] and slow.names("nothing") == []
    slow.remove(slow.path("open", "a"))
    assert time.monotonic() - start >= 7 * 0.02
    calls = calls_in(tmp_path / "calls")
    assert [call.name for call in calls] == ["put", "get", "exists", "exists", "list", "list", "remove"]
    assert {call.process for call in calls} == {os.getpid()}
    assert [call.folder for call in calls][:2] == ["open", "open"]


def test_a_chain_counts_calls_that_do_not_overlap() -> None:
    spans = [(0, 4), (0, 1), (1, 2), (1, 3), (2, 3), (9, 10)]
    assert chain([Call(1, "get", "open", start, end) for start, end in spans]) == 4
    assert chain([]) == 0
