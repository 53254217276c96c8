"""Which chunks of a job may be queued now, by the quotas of the API key that made the job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from strata.core import NO_QUOTAS, Chunk, JobRequest, Quotas
from strata.keys import StoredKeys
from strata.queue import IMAGES, Queue

FRESH_SECONDS = 5.0  # for which the quotas of keys are believed
AT_ONCE = 500  # chunks that are asked for in one call


class Admission(NamedTuple):
    """How many of some chunks may be queued now; reason: why not all. never: waiting does not help.

    seconds: after which the next one may be queued, if nothing else changes; None: not known.
    """

    number: int
    reason: str = ""
    seconds: int | None = None
    never: bool = False


class JobQuotas:
    """The quotas of the keys of all jobs, for the scheduler. Every method raises QueueUnavailable.

    It reads the keys in the store every few seconds while there are jobs of keys. If it cannot, the last list is
    believed; without one, OSError is raised.
    """

    def __init__(self, queue: Queue, keys: StoredKeys, clock: Callable[[], float] = time.monotonic) -> None:
        self.windows, self.ledger, self.keys = queue.windows, queue.ledger, keys
        self._clock = clock
        self._quotas: dict[str, Quotas] = {}
        self._money: dict[str, float | None] = {}  # as the ledger was told
        self._read_at: float | None = None

    def reset(self) -> None:
        """Redis may have been emptied: tell the ledger again."""
        self._money.clear()
        self._read_at = None

    def of(self, key_id: str) -> Quotas:
        """The quotas of a key; none for the empty id. Those of a key that was removed are the last ones known."""
        if not key_id:
            return NO_QUOTAS
        # a key that is not known yet may be new
        fresh = self._read_at is not None and self._clock() - self._read_at < FRESH_SECONDS
        if not fresh or key_id not in self._quotas:
            self._read()
        return self._quotas.setdefault(key_id, NO_QUOTAS)

    def _read(self) -> None:
        try:
            keys, _ = self.keys.all()
        except OSError:
            if self._read_at is None and not self._quotas:
                raise
        else:
            self._quotas |= {key.id: key.quotas for key in keys}
        money = {key_id: quotas.money_a_day for key_id, quotas in self._quotas.items()}
        changed = dict(money.items() - self._money.items())
        if changed:
            self.ledger.allow(changed)
        self._money, self._read_at = money, self._clock()

    def admit(self, request: JobRequest, chunks: Sequence[Chunk]) -> Admission:
        """How many of the next chunks of a job may be queued; their images are counted for its key, each chunk once."""
        most = self.of(request.key).images_a_day
        if most is None:
            return Admission(len(chunks))
        number = 0
        while number < len(chunks):
            things = [(chunk.field, chunk.images) for chunk in chunks[number : number + AT_ONCE]]
            use = self.windows.use_for(IMAGES, request.key, most, request.id, things)
            number += use.had
            if use.had < len(things):
                return self._held(request.key, most, number, chunks[number].images, use.after)
        return Admission(number)

    def _held(self, key_id: str, most: int, number: int, images: int, seconds: int | None) -> Admission:
        what = f"the key {key_id} may have {most:,} images described a day"
        if images > most:
            return Admission(number, f"{what}, and a chunk of this job has {images:,}", never=True)
        if seconds is not None:  # the next chunk fits then, if the key does not use more in between
            what += f"; goes on at {datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%MZ}"
        return Admission(number, what, seconds)
