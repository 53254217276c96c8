"""The images of which a sample is drawn: all of a job's shards that have no results yet, each with the same chance.

They are known when every shard is indexed; of a job of chosen rows they are those that its filter lets pass. The sample
is drawn without replacement; its images come in lists of one micro-batch each, in random order, so that each list is a
random sample too. These lists become the job's shards.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    source_identity,
    source_shard,
)
from strata.store import READERS, BrokenPart, IndexRow, Store, is_picked_list, located_rows, write_picked

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
    found = list[ShardSummary]()
    for rows in _by_version(_distinct(_picked_rows(store, request, shards, places))):
        found += (_write(store, request, rows[start : start + batch]) for start in range(0, len(rows), batch))
    return found


class _Picked(NamedTuple):
    """A picked row. tar: the identity of the tar that its image lies in; empty without one.

    families: the names under which earlier rows of its shard are found.
    """

    row: IndexRow
    tar: str
    families: Sequence[str]


def _picked_rows(
    store: Store, request: JobRequest, shards: Sequence[_Shard], places: np.typing.NDArray[np.int64]
) -> list[_Picked]:
    """The rows at places among all images without a final part, in order. Each shard is read once."""
    size = request.chunk_size
    ends = np.cumsum([one.images(size, FINAL_GROUP) for one in shards])
    of = np.searchsorted(ends, places, side="right")
    found: dict[int, _Picked] = {}
    for number in np.unique(of):
        shard, wanted = shards[number], np.flatnonzero(of == number)
        first = int(ends[number - 1]) if number else 0
        inside = [shard.row(int(places[place]) - first, size) for place in wanted]
        found |= zip(map(int, wanted), _read(store, request, shard.summary, inside), strict=True)
    return [found[place] for place in range(len(places))]


def _read(store: Store, request: JobRequest, summary: ShardSummary, numbers: Sequence[int]) -> Iterator[_Picked]:
    """The rows with some numbers of a shard, or of what is chosen of it."""
    try:
        table, footer = store.read_part(request.index_chunk(summary.shard, summary.identity))
    except (FileNotFoundError, BrokenPart) as error:
        shard = source_shard(summary.shard)
        raise OSError(f"the index of {shard} is gone: cancel the job, and submit it again") from error
    identity = source_identity(summary.identity)
    # the images of a sample's list lie in several tars
    tars = store.read_sources(identity) if is_picked_list(source_shard(summary.shard)) else {}
    for row in located_rows(table.take(list(numbers)), summary.shard):
        yield _Picked(row, tars.get(row.uri, identity) if row.offset else "", footer.families)


def _by_version(rows: Iterable[_Picked]) -> Iterator[list[_Picked]]:
    """The rows in groups of which each has one version of every tar.

    There is one group, unless rows are chosen of descriptions between which a tar has changed.
    """
    versions: defaultdict[str, list[str]] = defaultdict(list)
    found: defaultdict[int, list[_Picked]] = defaultdict(list)
    for one in rows:
        known = versions[one.row.uri]
        known += [] if one.tar in known else [one.tar]
        found[known.index(one.tar)].append(one)
    yield from found.values()


def _write(store: Store, request: JobRequest, rows: Sequence[_Picked]) -> ShardSummary:
    """Write a list of rows."""
    tars = {one.row.uri: one.tar for one in rows if one.tar}
    families = dict.fromkeys(name for one in rows for name in one.families)
    return write_picked(store, [one.row for one in rows], request.index_chunk, tars, list(families))


def _distinct(rows: Iterable[_Picked]) -> Iterator[_Picked]:
    """The rows with distinct keys: several shards may have the same ones, and a record is asked for by its key."""
    used: set[str] = set()
    numbers: Counter[str] = Counter()
    for one in rows:
        name = key = one.row.key
        while key in used:
            numbers[name] += 1
            key = f"{name}~{numbers[name] + 1}"
        used.add(key)
        yield one._replace(row=one.row._replace(key=key))
