"""Submissions of rows of other jobs, snapshots and data sets: what may be read of them, and a preview."""

from __future__ import annotations

import numpy as np

from app.batch_preview import Preview, TimeOver
from app.dependencies import Services
from app.problems import ProblemError
from strata.core import (
    FINAL_GROUP,
    GROUPS,
    BatchInput,
    BatchPreview,
    ChosenRows,
    Chunk,
    Pin,
    PinnedShard,
    Profile,
    chosen_identity,
    chosen_shard,
)
from strata.errors import BrokenStore, DataError, InvalidInput, NotFound
from strata.jobs import MOST_COMPARED, Chosen, copied_rows, ended_rows
from strata.keys import Access
from strata.shards import SourceError
from strata.snapshots import FilterError
from strata.snapshots.chosen import Pinning, chosen_numbers


def chosen_rows(given: Services, asked: BatchInput, access: Access) -> Chosen:
    """What the sources of a request have now. Raises ProblemError for one that does not exist for an access.

    Raises OSError, and DamagedFile.
    """
    sources = asked.sources or []
    try:
        pin = Pinning(given.store, access.sees).pin(sources, asked.where)
    except FilterError as error:
        raise _refused("where", str(error)) from error
    except (NotFound, InvalidInput) as error:
        raise _refused("sources", str(error)) from error
    except BrokenStore as error:
        raise ProblemError("part-lost", str(error)) from error
    return Chosen(ChosenRows(sources=sources, where=asked.where), pin)


def _refused(field: str, detail: str) -> ProblemError:
    errors = [{"type": "value_error", "location": ["body", "input", field], "message": detail}]
    return ProblemError("invalid-request", f"body.input.{field}: {detail}", errors)


class ChosenPreview(Preview):
    """Counts the rows that a filter chooses, shard by shard, as far as the time allows."""

    def __init__(self, given: Services, profile: Profile, tenant: str | None, pin: Pin) -> None:
        super().__init__(given, profile, tenant)
        self._where = pin.where
        self._pinned = {chosen_shard(one.uri, "", one.identity): one for one in pin.shards}
        self._found = np.array([], np.int64), False  # the numbers of the rows of the shard that was counted last
        self.looked.failed = 0

    def of_pinned(self) -> BatchPreview:
        """The preview of a job of the chosen rows."""
        return self.of(list(self._pinned))

    def _count(self, shard: str) -> tuple[str, int]:
        pinned = self._pinned[shard]
        try:
            numbers = self._numbers(pinned)
        except (InvalidInput, DataError, BrokenStore) as error:
            raise SourceError(str(error)) from error
        return chosen_identity(pinned.identity, numbers), len(numbers)

    def _numbers(self, pinned: PinnedShard) -> list[int]:
        try:
            table, _ = self.given.store.read_index(self._chunk(GROUPS[0], pinned.uri, pinned.identity))
        except FileNotFoundError:
            raise TimeOver("a shard that must be indexed anew is not counted") from None
        numbers = chosen_numbers(self.given.store, self._where, pinned, table.column("key"), self.check_time)
        self._found = np.array(numbers, np.int64), table.num_rows <= MOST_COMPARED
        return numbers

    def _chunk(self, group: str, shard: str, identity: str) -> Chunk:
        return Chunk(group, self.profile.name, self.profile.fingerprint(group), shard, identity)

    def _reused(self, shard: str, identity: str, images: int) -> int:
        """How many of the chosen rows have results: whole chunks of the same choice, and rows that are copied."""
        store, size = self.given.store, self.profile.chunk_size
        index, final = (self._chunk(group, shard, identity) for group in (GROUPS[0], FINAL_GROUP))
        numbers, compared = self._found
        found = np.zeros(images, np.bool_)
        for number, passed in ended_rows(store, final, range(-(-images // size))):
            found[number * size : (number + 1) * size] = True
            self.looked.failed = (self.looked.failed or 0) + int((~passed).sum())
            self.check_time()
        left = np.flatnonzero(~found)
        if compared and len(left):
            found[left] = copied_rows(store, index, final, size, numbers[left], self.check_time)
        return int(found.sum())
