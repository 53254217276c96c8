"""Chosen rows whose results exist: in the parts of their whole shard, or of other choices of its rows.

The workers copy these rows (`workers/earlier.py`); here they are only counted, by their numbers in the shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strata.core import Chunk, Status, chosen_family, source_identity
from strata.store import MAX_FAMILY, READERS, SOURCE_NUMBER, BrokenPart, Part, Store

MOST_COMPARED = 200_000  # rows of a shard up to which rows of earlier choices are copied: a worker holds them all

Numbers = np.typing.NDArray[np.int64]
Bools = np.typing.NDArray[np.bool_]


def copied_rows(
    store: Store, index: Chunk, final: Chunk, size: int, numbers: Numbers, advance: Callable[[], object] = lambda: None
) -> Bools:
    """Which chosen rows of a shard have a result in a part of another choice, or of the whole shard: (rows,) of bool.

    A row that failed has none. index, final: chunks of the choice in the first and in the last group, with its identity
    and the fingerprints of the profile. size: of a chunk. numbers: of the rows in the shard. advance: called from time
    to time; what it raises is raised. Raises OSError.
    """
    source = source_identity(final.identity)
    # a job puts its own choice and the whole shard first in the family, before it is computed
    others = [one for one in store.family([chosen_family(source)]) if one not in (source, final.identity)]
    found = np.zeros(len(numbers), np.bool_)
    for identity in (source, *others[: MAX_FAMILY - 2]):
        advance()
        left = np.flatnonzero(~found)
        places = _places(store, replace(index, identity=identity), numbers[left])
        known = places >= 0
        found[left[known]] = _have_results(store, replace(final, identity=identity), size, places[known], advance)
    return found


def _places(store: Store, index: Chunk, numbers: Numbers) -> Numbers:
    """The places of rows of a shard among those of a choice or of the whole shard; -1 of a row that is not there."""
    if index.identity == source_identity(index.identity):
        return numbers
    try:
        own = store.read_index(index)[0].column(SOURCE_NUMBER).to_numpy()
    except (FileNotFoundError, BrokenPart, KeyError):  # `strata clean` has removed it
        return np.full(len(numbers), -1)
    places = np.searchsorted(own, numbers)
    there = places < len(own)
    there[there] = own[places[there]] == numbers[there]
    return np.where(there, places, -1)


def _have_results(store: Store, final: Chunk, size: int, places: Numbers, advance: Callable[[], object]) -> Bools:
    """Which rows of a shard or choice have a result that is no failure."""
    found = np.zeros(len(places), np.bool_)
    for number, passed in ended_rows(store, final, [int(one) for one in np.unique(places // size)]):
        inside = np.flatnonzero(places // size == number)
        found[inside] = passed[places[inside] % size]
        advance()
    return found


def ended_rows(store: Store, final: Chunk, numbers: Iterable[int]) -> Iterator[tuple[int, Bools]]:
    """Of the chunks with these numbers that have a part: the number, and which of its rows did not fail.

    final: a chunk of the same shard or choice. Raises OSError.
    """
    attempts = store.attempts(final)
    newest = [attempts.newest(replace(final, number=number, images=0, attempt=0)) for number in numbers]
    chunks = [one for one in newest if one is not None]
    with ThreadPoolExecutor(READERS) as pool:
        # few at a time, so that little is read for nothing if the time is over
        for start in range(0, len(chunks), READERS):
            some = chunks[start : start + READERS]
            for chunk, passed in zip(some, pool.map(lambda one: _passed(store, one), some), strict=True):
                if passed is not None:
                    yield chunk.number, passed


def _passed(store: Store, chunk: Chunk) -> Bools | None:
    try:
        statuses = store.read_columns(Part.of_chunk(chunk).path, ["status"]).column("status")
    except (FileNotFoundError, BrokenPart):
        return None
    passed: Bools = pc.not_equal(statuses.cast(pa.string()), Status.FAILED.value).to_numpy()
    return passed
