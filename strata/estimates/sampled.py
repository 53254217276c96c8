"""What the parts of a sample tell so far: the rows of its images, and what its micro-batches took of workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from strata.core import FINAL_GROUP, GROUPS, MILLION, STAGES_OF, Chunk, JobRequest, Record, Work
from strata.store import READERS, Footer, Store

SIZED = 16  # lists whose parts' sizes are measured: each is encoded once more


@dataclass
class Sampled:
    """The parts of a sample. records: of the images that have their result; works: by group, what lists took so far.

    rows: how many images the lists of these works have; parts: all that are written, by group.
    """

    records: list[Record] = field(default_factory=list)
    works: dict[str, list[Work]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    parts: dict[str, list[Chunk]] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, request: JobRequest) -> Sampled:
        """Read what is there of a job's sample, whose lists are its shards. Raises OSError and BrokenPart."""
        found = cls()
        with ThreadPoolExecutor(READERS) as pool:
            for group in GROUPS[1:]:
                chunks = [next(iter(request.chunks(summary, group))) for summary in request.indexed]
                written = [chunk for chunk in pool.map(store.newest, chunks) if chunk is not None]
                footers = zip(written, store.read_all_footers(written), strict=True)
                # a retry computes the images that have failed, and copies the others
                firsts = [
                    (chunk, one.work)
                    for chunk, one in footers
                    if isinstance(one, Footer) and not chunk.attempt and one.work
                ]
                found.works[group], found.parts[group] = [work for _, work in firsts], written
                found.rows[group] = sum(chunk.images for chunk, _ in firsts)
            for records in pool.map(store.read_records, found.parts[FINAL_GROUP]):
                found.records += records
        return found

    def timed(self, group: str) -> list[Work]:
        """What lists took of which images were computed: those that came first in their processes only if all did."""
        computed = [work for work in self.works[group] if work.images]
        return [work for work in computed if not work.first] or computed

    def computed_share(self, group: str) -> tuple[int, int]:
        """How many images of the lists a group has computed, and how many the lists have: others were copied."""
        return sum(work.images for work in self.works[group]), self.rows[group]


def usage_of(record: Record, group: str) -> tuple[int, int]:
    """The tokens that a group has read and written for an image."""
    used = [record.usage[stage] for stage in STAGES_OF[group] if stage in record.usage]
    return sum(one.prompt_tokens for one in used), sum(one.completion_tokens for one in used)


def money_of(record: Record, request: JobRequest, group: str) -> float:
    """What a group has paid for an image, at the prices of the job; each stage's cost is rounded up, as in bills."""
    assert request.sample is not None
    total = 0
    for stage in STAGES_OF[group]:
        prices = request.sample.prices.get(stage)
        if prices is not None and stage in record.usage:
            used = record.usage[stage]
            total += math.ceil(used.prompt_tokens * prices[0] + used.completion_tokens * prices[1])
    return total / MILLION


@dataclass(frozen=True)
class Sizes:
    """The bytes of parts: fixed ones of each part, and those of an image in each list that was measured."""

    fixed: float
    images: Sequence[float]

    @classmethod
    def of(cls, store: Store, chunks: Sequence[Chunk]) -> Sizes | None:
        """The sizes of the parts of some lists; None of less than two, whose fixed bytes are not known.

        What k parts have more than one part with all their rows is k - 1 times what is fixed. Raises OSError and
        BrokenPart.
        """
        measured = chunks[:SIZED]
        if len(measured) < 2:
            return None
        tables = [store.read_table(chunk) for chunk in measured]
        alone = [store.size_of(chunk, table) for chunk, table in zip(measured, tables, strict=True)]
        together = store.size_of(measured[0], pa.concat_tables(tables))
        fixed = max(0.0, (sum(alone) - together) / (len(alone) - 1))
        return cls(fixed, [(size - fixed) / table.num_rows for size, table in zip(alone, tables, strict=True)])
