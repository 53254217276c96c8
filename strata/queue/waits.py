"""Waits: fingerprints whose stage does not work now. Their chunks step aside, so that those of others are computed.

A chunk that steps aside leaves its stream for a list of parked chunks of its group and fingerprint. `Broker.claim`
parks other chunks of the fingerprint too, and after a pause it claims one of them as a trial. If the trial fails, the
chunk steps aside again and the pause grows; if it succeeds, the parked chunks return to their streams. All times are
those of Redis' clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from strata.core import GROUPS, Waiting
from strata.queue import keys
from strata.queue.broker import PRIORITIES, RETURNED, Claim
from strata.queue.connection import Connection, translate_errors
from strata.queue.isolation_notes import CURRENT
from strata.queue.scripts import load_with_waits

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before the next trial
LONGEST_REQUESTED = 3600.0  # seconds; the upper limit of a pause that a server asks for
_PAGE = 500  # chunks whose waiting jobs are read in one command


@translate_errors
class Waits:
    """What waits for a stage. Every method raises QueueUnavailable."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._step_aside = connection.register_script(load_with_waits("step_aside", CURRENT=CURRENT, RETURNED=RETURNED))

    def step_aside(
        self, claim: Claim, consumer: str, stage: str, reason: str, refused: bool = False, pause: float = 0.0
    ) -> int | None:
        """Park a claimed chunk, and let its fingerprint wait for a stage.

        refused: the stage's server refuses every request; pause: seconds that it asks to wait. Returns how many
        attempts in a row were refused; None, with nothing changed, if another worker has reclaimed the chunk.
        """
        chunk = claim.chunk
        identity = [claim.message, keys.CONSUMER_GROUP, consumer, chunk.id, chunk.group, chunk.fingerprint]
        pauses = [round(1000 * s) for s in (min(pause, LONGEST_REQUESTED), FIRST_PAUSE, LONGEST_PAUSE)]
        refusals = self._step_aside(
            keys=[claim.stream, keys.QUEUED, keys.in_flight(chunk.id)],
            args=[*identity, claim.priority, stage, reason, int(refused), *pauses],
        )
        return None if refusals < 0 else int(refusals)

    def end(self, group: str, fingerprint: str) -> None:
        """The stage works: end the waiting. The parked chunks return with the next calls of `Broker.claim`."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(keys.waits(group), fingerprint)
            pipe.delete(keys.waiting(group, fingerprint))
            pipe.sadd(keys.returning(group), fingerprint)
            pipe.execute()

    def find(self, fingerprints: Mapping[str, str]) -> Waiting | None:
        """What is waited for, by one of these fingerprints by group; None if all work. The longest wait, if several."""
        with self._redis.pipeline(transaction=False) as pipe:
            for group, fingerprint in fingerprints.items():
                pipe.hgetall(keys.waiting(group, fingerprint))
            found = [_waiting(fields) for fields in pipe.execute() if "stage" in fields]
        return min(found, key=lambda waiting: waiting.since, default=None)

    def fingerprints(self) -> set[tuple[str, str]]:
        """All that wait for a stage, as pairs of group and fingerprint."""
        with self._redis.pipeline(transaction=False) as pipe:
            for group in GROUPS:
                pipe.zrange(keys.waits(group), 0, -1)
            found = zip(GROUPS, pipe.execute(), strict=True)
        return {(group, fingerprint) for group, names in found for fingerprint in names}

    def parked(self, group: str, fingerprint: str) -> int:
        """How many chunks of a fingerprint have stepped aside."""
        return sum(int(self._redis.llen(keys.parked(group, fingerprint, priority))) for priority in PRIORITIES)

    def jobs(self, group: str, fingerprint: str) -> set[str]:
        """The ids of the jobs that wait for a parked chunk of a fingerprint."""
        chunk_ids: list[str] = []
        for priority in PRIORITIES:
            packed = cast("list[str]", self._redis.lrange(keys.parked(group, fingerprint, priority), 0, -1))
            # a message begins with the name and the value of the chunk's id
            chunk_ids += [json.loads(text)[1] for text in packed]
        found: set[str] = set()
        for start in range(0, len(chunk_ids), _PAGE):
            names = [keys.waiters(chunk_id) for chunk_id in chunk_ids[start : start + _PAGE]]
            found |= cast("set[str]", self._redis.sunion(names))
        return found


def _waiting(fields: Mapping[str, Any]) -> Waiting:
    since = datetime.fromtimestamp(int(fields["since"]) / 1000, UTC)
    return Waiting(stage=fields["stage"], reason=fields["reason"], since=since, attempts=int(fields["attempts"]))
