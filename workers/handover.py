"""Handover: what a process leaves to the next holders of its chunks.

A process that is broken is alive enough to tidy up: it keeps the rows that are computed already, so that they are not
computed again, and notes which rows were in flight, so that no others are suspected (`workers.isolation`). A process
that is killed keeps nothing more, so the rows of a chunk that takes long are kept every few seconds, and those that
were paid for after each micro-batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import suppress

from models.base import StageBroken, StageRefused, StageUnavailable
from strata.errors import QueueUnavailable
from strata.store import Store, write_progress
from workers.claims import Claims
from workers.isolation import Blame, watching_storage
from workers.prepared import PreparedChunk

log = logging.getLogger(__name__)

KEEP_SECONDS = 5.0  # of computing, after which the rows of a chunk are kept
KEEP_SHARE = 0.02  # of the time, at most, is used for that


def hand_over(
    chunk: PreparedChunk, claims: Claims, in_flight: Collection[int], alone: bool, broken: StageBroken
) -> None:
    """Leave a chunk to its next holder. in_flight: its rows that the stage computed; alone: no others, of any chunk.

    Without Redis the lease lapses, and the next holder computes all rows one by one.
    """
    log.warning("chunk %s is left with rows %s in flight: %s", chunk.claim.chunk.id, list(in_flight), broken)
    saved = _save(chunk, claims.store)
    kind = "OutOfMemoryError" if broken.memory else "poison"
    detail = broken.reason if broken.memory else f"processes ended while they computed this image: {broken.reason}"
    with suppress(QueueUnavailable):
        chunk.isolation.ended(in_flight, alone, Blame(broken.stage, kind, detail), saved)
        claims.hand_over(chunk.claim)
    claims.stop_renewing(chunk.claim)


def step_aside(chunk: PreparedChunk, claims: Claims, error: StageUnavailable) -> None:
    """Let a chunk step aside whose stage is unavailable. The rows that are computed are kept for its next holder."""
    if chunk.has_computed and _save(chunk, claims.store):
        with suppress(QueueUnavailable):
            chunk.isolation.ended((), False, Blame(error.stage, "", ""), saved=True)
    refused = isinstance(error, StageRefused)
    claims.step_aside(chunk.claim, error.stage, error.reason, refused, error.pause)


def keep_computed(chunk: PreparedChunk, store: Store) -> None:
    """After a micro-batch: keep the computed rows, if it is time for it, unless the part follows as all are computed.

    Rows whose stages ask servers are paid for, and kept at once. The next holder reads them without a note: it may be
    of another job, or Redis may have lost the notes.
    """
    now = time.monotonic()
    # of chunks that take a moment nothing is kept
    if chunk.account.meter is None and chunk.keep_at is None:
        chunk.keep_at = now + KEEP_SECONDS
    if (chunk.keep_at is not None and now < chunk.keep_at) or all(item.settled for item in chunk.items):
        return
    with watching_storage(chunk.claim):
        chunk.saved = _save(chunk, store) or chunk.saved
    if chunk.keep_at is not None:
        ended = time.monotonic()
        chunk.keep_at = ended + max(KEEP_SECONDS, (ended - now) / KEEP_SHARE)


def _save(chunk: PreparedChunk, store: Store) -> bool:
    """Keep the rows that are settled; False if that is not possible, and they are computed again."""
    rows = {row: item.record for row, item in enumerate(chunk.items) if item.settled and row not in chunk.poison}
    if not rows:
        return False
    try:
        write_progress(store, chunk.claim.chunk, rows)
    # the store is away, or a text is no Unicode
    except (OSError, ValueError) as error:
        log.warning("%d computed rows of chunk %s are lost: %s", len(rows), chunk.claim.chunk.id, error)
        return False
    return True
