"""The images of which a sample is drawn: all of a job's shards that have no results yet, each with the same chance.

They are known when every shard is indexed. The sample is drawn without replacement; its images come in lists of one
micro-batch each, in random order, so that each list is a random sample too. These lists become the job's shards.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from strata.core import (
    FINAL_GROUP,
    GROUPS,
    JobRequest,
    JobSample,
    Profile,
    Sample,
    ShardSummaries,
    ShardSummary,
)
from strata.store import READERS, BrokenPart, IndexRow, Store, located_rows, write_picked

FILE = "population"  # the name of the job's file


class Population(BaseModel):
    """What a sample was drawn of. It is a file of the job.

    shards, unread: of the whole job; unread: that have no image that could be read. images: of all shards. missing:
    how many each group has to compute, chunks: in how many chunks; equal shards count once in both.
    """

    shards: int
    unread: int
    images: int
    missing: dict[str, int]
    chunks: dict[str, int]


class _Shard(NamedTuple):
    """A shard, and the numbers of its chunks that have no part, by group."""

    summary: ShardSummary
    missing: Mapping[str, Sequence[int]]

    def images(self, size: int, group: str) -> int:
        """How many images the missing chunks of a group have. size: of a chunk."""
        return sum(min(size, self.summary.images - number * size) for number in self.missing[group])

    def row(self, place: int, size: int) -> int:
        """The row in the shard of an image by its place among those without a final part."""
        # only the last chunk of a shard may be smaller
        return self.missing[FINAL_GROUP][place // size] * size + place % size


def sample_of(wanted: JobSample, profile: Profile) -> Sample:
    """What a job has to know to describe a sample with a profile."""
    batch = min(profile.micro_batch, profile.chunk_size)
    return Sample(images=wanted.images, seed=wanted.seed, batch=batch, prices=profile.stage_prices())


class Drawn(NamedTuple):
    """A sample that is drawn: the request of its job, as one of these images, and what they were drawn of."""

    request: JobRequest
    population: Population

    def write(self, store: Store) -> None:
        """Write the files of the job. The request last: with it the job is one of the drawn images. Raises OSError."""
        store.write_job_file(self.request.id, FILE, self.population)
        store.write_job_file(self.request.id, "shards", ShardSummaries(shards=self.request.indexed))
        store.write_job_file(self.request.id, "request", self.request)


def draw(store: Store, request: JobRequest, summaries: Sequence[ShardSummary]) -> Drawn:
    """Draw the sample of a job whose shards are indexed, and write the lists of its images, but no file of the job.

    summaries: of all its shards, in order. With the same summaries, parts and seed the result is the same. Raises
    OSError, also if the index of a shard is gone.
    """
    assert request.sample is not None
    shards = _shards(store, request, summaries)
    population = Population(
        shards=len(summaries),
        unread=sum(one.failure is not None and not one.images for one in summaries),
        images=sum(one.images for one in summaries),
        missing={group: sum(one.images(request.chunk_size, group) for one in shards) for group in GROUPS[1:]},
        chunks={group: sum(len(one.missing[group]) for one in shards) for group in GROUPS[1:]},
    )
    lists = _write_lists(store, request, shards, population.missing[FINAL_GROUP])
    sample = request.sample.model_copy(update={"drawn": True})
    drawn = request.model_copy(update={"shards": [one.shard for one in lists], "indexed": lists, "sample": sample})
    return Drawn(drawn, population)


def _shards(store: Store, request: JobRequest, summaries: Sequence[ShardSummary]) -> list[_Shard]:
    """The shards with their missing chunks; of shards with the same content only the first, whose parts they share."""
    distinct = {one.identity: one for one in reversed(summaries) if one.images}
    ordered = list(reversed(distinct.values()))
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(functools.partial(_missing, store, request), ordered)
        return [_Shard(summary, missing) for summary, missing in zip(ordered, found, strict=True)]


def _missing(store: Store, request: JobRequest, summary: ShardSummary) -> dict[str, Sequence[int]]:
    """The numbers of a shard's chunks that each group has to compute: what has its last part needs no other."""
    left: Sequence[int] = range(summary.chunks(request.chunk_size))
    found: dict[str, Sequence[int]] = {}
    for group in reversed(GROUPS[1:]):
        chunks = list(request.chunks(summary, group, left))
        if chunks:
            attempts = store.attempts(chunks[0])
            left = [chunk.number for chunk in chunks if attempts.newest(chunk) is None]
        found[group] = left
    return found


def _write_lists(store: Store, request: JobRequest, shards: Sequence[_Shard], total: int) -> list[ShardSummary]:
    """Draw the images and write the lists of one micro-batch each."""
    assert request.sample is not None
    size, batch = request.sample.images, request.sample.batch
    # the order is random too
    places = np.random.default_rng(request.sample.seed).choice(total, size=min(size, total), replace=False)
    picked = _Picked(store, request, shards)
    rows = list(_distinct(picked.rows(places)))
    return [picked.write(rows[start : start + batch]) for start in range(0, len(rows), batch)]


class _Picked:
    """Rows of several shards, which are read once each."""

    def __init__(self, store: Store, request: JobRequest, shards: Sequence[_Shard]) -> None:
        self.store, self.request, self.shards = store, request, shards
        self._tars: dict[str, str] = {}  # the identities of shards by their URIs
        self._families: dict[str, tuple[str, ...]] = {}

    def rows(self, places: np.typing.NDArray[np.int64]) -> list[tuple[str, IndexRow]]:
        """The rows at places among all images without a final part, in order, each with the URI of its shard."""
        size = self.request.chunk_size
        ends = np.cumsum([one.images(size, FINAL_GROUP) for one in self.shards])
        of = np.searchsorted(ends, places, side="right")
        found: dict[int, tuple[str, IndexRow]] = {}
        for number in np.unique(of):
            shard, wanted = self.shards[number], np.flatnonzero(of == number)
            first = int(ends[number - 1]) if number else 0
            inside = [shard.row(int(places[place]) - first, size) for place in wanted]
            rows = self._read(shard.summary, inside)
            found |= {int(place): (shard.summary.shard, row) for place, row in zip(wanted, rows, strict=True)}
        return [found[place] for place in range(len(places))]

    def _read(self, summary: ShardSummary, numbers: Sequence[int]) -> list[IndexRow]:
        index = self.request.index_chunk(summary.shard, summary.identity)
        try:
            table, footer = self.store.read_part(index)
        except (FileNotFoundError, BrokenPart) as error:
            raise OSError(f"the index of {summary.shard} is gone: cancel the job, and submit it again") from error
        self._tars[summary.shard] = summary.identity
        self._families[summary.shard] = footer.families
        return located_rows(table.take(list(numbers)), summary.shard)

    def write(self, rows: Sequence[tuple[str, IndexRow]]) -> ShardSummary:
        """Write a list of rows."""
        shards = dict.fromkeys(shard for shard, _ in rows)
        tars = {row.uri: self._tars[shard] for shard, row in rows if row.offset}
        families = dict.fromkeys(name for shard in shards for name in self._families[shard])
        return write_picked(self.store, [row for _, row in rows], self.request.index_chunk, tars, list(families))


def _distinct(rows: Sequence[tuple[str, IndexRow]]) -> Iterator[tuple[str, IndexRow]]:
    """The rows with distinct keys: several shards may have the same ones, and a record is asked for by its key."""
    used: set[str] = set()
    numbers: Counter[str] = Counter()
    for shard, row in rows:
        key = row.key
        while key in used:
            numbers[row.key] += 1
            key = f"{row.key}~{numbers[row.key] + 1}"
        used.add(key)
        yield shard, row._replace(key=key)
