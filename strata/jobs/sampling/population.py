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
import pyarrow as pa
from pydantic import BaseModel

from strata.addresses import without_secrets
from strata.core import (
    FINAL_GROUP,
    GROUPS,
    Chunk,
    JobRequest,
    JobSample,
    Profile,
    Sample,
    ShardSummaries,
    ShardSummary,
    chosen_by,
    source_identity,
    source_shard,
)
from strata.jobs.sampling.copied import Bools, Numbers, copied_rows
from strata.store import READERS, SOURCE_NUMBER, BrokenPart, IndexRow, Store, is_picked_list, located_rows, write_picked

FILE = "population"  # the name of the job's file


class Population(BaseModel):
    """What a sample was drawn of. It is a file of the job.

    shards, unread: of the whole job; unread: that have no image that could be read; reason: that of the first of them.
    images: of all shards. missing: how many each group has to compute, chunks: in how many chunks; equal shards count
    once in both.
    """

    shards: int
    unread: int
    reason: str | None = None
    images: int
    missing: dict[str, int]
    chunks: dict[str, int]


class _Shard(NamedTuple):
    """A shard, and the rows that each group has to compute, ascending."""

    summary: ShardSummary
    missing: Mapping[str, Numbers]

    def chunks(self, size: int, group: str) -> int:
        """In how many chunks the rows are that a group has to compute. size: of a chunk."""
        return len(np.unique(self.missing[group] // size))


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
    unread = [one for one in summaries if one.failure is not None and not one.images]
    population = Population(
        shards=len(summaries),
        unread=len(unread),
        reason=_reason(unread[0]) if unread else None,
        images=sum(one.images for one in summaries),
        missing={group: sum(len(one.missing[group]) for one in shards) for group in GROUPS[1:]},
        chunks={group: sum(one.chunks(request.chunk_size, group) for one in shards) for group in GROUPS[1:]},
    )
    lists = _write_lists(store, request, shards, population.missing[FINAL_GROUP])
    sample = request.sample.model_copy(update={"drawn": True})
    drawn = request.model_copy(update={"shards": [one.shard for one in lists], "indexed": lists, "sample": sample})
    return Drawn(drawn, population)


def _reason(summary: ShardSummary) -> str:
    """Why a shard cannot be read."""
    assert summary.failure is not None
    return without_secrets(f"{source_shard(summary.shard)}: {summary.failure.detail}")


def _shards(store: Store, request: JobRequest, summaries: Sequence[ShardSummary]) -> list[_Shard]:
    """The shards with their missing rows; of shards with the same content only the first, whose parts they share."""
    distinct = {one.identity: one for one in reversed(summaries) if one.images}
    ordered = list(reversed(distinct.values()))
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(functools.partial(_missing, store, request), ordered)
        return [_Shard(summary, missing) for summary, missing in zip(ordered, found, strict=True)]


def _missing(store: Store, request: JobRequest, summary: ShardSummary) -> dict[str, Numbers]:
    """The rows of a shard that each group has to compute: what has its last part needs no other, and no copied row."""
    left: Sequence[int] = range(summary.chunks(request.chunk_size))
    rows = np.arange(summary.images)
    kept, found = ~_copied(store, request, summary), dict[str, Numbers]()
    for group in reversed(GROUPS[1:]):
        chunks = list(request.chunks(summary, group, left))
        if chunks:
            attempts = store.attempts(chunks[0])
            left = [chunk.number for chunk in chunks if attempts.newest(chunk) is None]
        found[group] = rows[kept & np.isin(rows // request.chunk_size, left)]
    return found


def _copied(store: Store, request: JobRequest, summary: ShardSummary) -> Bools:
    """Which rows of a shard the workers will copy; of whole shards it is seen when they are sampled."""
    if not chosen_by(summary.shard):
        return np.zeros(summary.images, np.bool_)
    index = request.index_chunk(summary.shard, summary.identity)
    table, families = _index(store, index)
    if not families:
        return np.zeros(summary.images, np.bool_)
    final = next(iter(request.chunks(summary, FINAL_GROUP)))
    return copied_rows(store, index, final, request.chunk_size, table.column(SOURCE_NUMBER).to_numpy())


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
    ends = np.cumsum([len(one.missing[FINAL_GROUP]) for one in shards])
    of = np.searchsorted(ends, places, side="right")
    found: dict[int, _Picked] = {}
    for number in np.unique(of):
        shard, wanted = shards[number], np.flatnonzero(of == number)
        first = int(ends[number - 1]) if number else 0
        inside = shard.missing[FINAL_GROUP][places[wanted] - first]
        found |= zip(map(int, wanted), _read(store, request, shard.summary, inside), strict=True)
    return [found[place] for place in range(len(places))]


def _read(store: Store, request: JobRequest, summary: ShardSummary, numbers: Numbers) -> Iterator[_Picked]:
    """The rows with some numbers of a shard, or of what is chosen of it."""
    table, families = _index(store, request.index_chunk(summary.shard, summary.identity))
    identity = source_identity(summary.identity)
    # the images of a sample's list lie in several tars
    tars = store.read_sources(identity) if is_picked_list(source_shard(summary.shard)) else {}
    for row in located_rows(table.take(pa.array(numbers)), summary.shard):
        yield _Picked(row, tars.get(row.uri, identity) if row.offset else "", families)


def _index(store: Store, index: Chunk) -> tuple[pa.Table, Sequence[str]]:
    """The index part of a shard, and its families."""
    try:
        table, footer = store.read_part(index)
    except (FileNotFoundError, BrokenPart) as error:
        shard = source_shard(index.shard)
        raise OSError(f"the index of {shard} is gone: cancel the job, and submit it again") from error
    return table, footer.families


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
