"""What a chunk takes of a worker: computing, decoding its first images, and not the single images between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from strata.core import Work
from workers.accounts import ChunkClock


def _clock(*times: float) -> ChunkClock:
    ticks: Iterator[float] = iter(times)
    return ChunkClock(lambda: next(ticks))


def test_the_time_from_the_first_micro_batch_to_the_last() -> None:
    clock = _clock(100.0, 100.5, 102.0, 107.0, 109.0)
    clock.begin()
    clock.start()
    clock.end()
    clock.pause(4.0)
    clock.start()
    clock.end()
    work = clock.work(5, 0.25, False, 9.0)
    assert work == Work(images=5, computing=8.5 - 4.0, decoding=0.5, writing=0.25, loading=9.0, device=work.device)


def test_pauses_before_the_first_micro_batch_and_after_the_last_are_no_part_of_the_time() -> None:
    clock = _clock(100.0, 102.0)
    clock.pause(1.0)
    clock.pause(5.0)
    clock.start()
    clock.end()
    clock.pause(7.0)
    assert clock.work(1, 0.0, False, None).computing == 2.0


def test_a_chunk_of_which_nothing_was_computed_took_nothing() -> None:
    clock = _clock(100.0)
    clock.begin()
    work = clock.work(0, 0.0, True, None)
    assert (work.images, work.computing, work.decoding, work.first, work.loading) == (0, 0.0, 0.0, True, None)


def test_rows_that_are_computed_alone_first_count_too() -> None:
    clock = _clock(1.0, 3.0, 3.5, 4.0, 6.0)
    clock.start()  # a suspect, before the others are decoded
    clock.end()
    clock.begin()
    clock.start()
    clock.end()
    assert clock.work(2, 0.0, False, None).computing == pytest.approx(5.0)
