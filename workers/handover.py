"""Handover: what a process leaves to the next holders of its chunks.

A process that is broken is alive enough to tidy up: it keeps the rows that are computed already, so that they are not
computed again, and notes which rows were in flight, so that no others are suspected (`workers.isolation`). Rows that
were paid for are kept after each micro-batch, whatever ends the work on their chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress

from models.base import StageBroken, StageRefused, StageUnavailable
from strata.errors import QueueUnavailable
from strata.store import Store, write_progress
from workers.claims import Claims
from workers.isolation import Blame, watching_storage
from workers.prepared import PreparedChunk

log = logging.getLogger(__name__)


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


def keep_paid(chunk: PreparedChunk, store: Store) -> None:
    """Keep the computed rows of a chunk whose stages ask servers, unless all are computed and its part follows.

    The next holder reads them without a note: it may be of another job, after the budget of this one is spent.
    """
    if chunk.account.meter is not None and not all(item.settled for item in chunk.items):
        with watching_storage(chunk.claim):
            chunk.saved = _save(chunk, store) or chunk.saved


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
