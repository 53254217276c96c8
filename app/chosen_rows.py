"""Submissions of rows of other jobs, snapshots and data sets: what may be read of them, and a preview."""

from __future__ import annotations

from app.batch_preview import Preview, TimeOver
from app.dependencies import Services
from app.problems import ProblemError
from strata.core import (
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
from strata.jobs import Chosen
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
        index = Chunk(GROUPS[0], self.profile.name, self.profile.fingerprint(GROUPS[0]), pinned.uri, pinned.identity)
        try:
            table, _ = self.given.store.read_index(index)
        except FileNotFoundError:
            raise TimeOver("a shard that must be indexed anew is not counted") from None
        return chosen_numbers(self.given.store, self._where, pinned, table.column("key"), self.check_time)
