"""The queue on Redis Streams. Only this package issues Redis commands and knows the names of keys.

Of Strata it imports only `strata.core` and `strata.errors`. Read `queue.py` first, then `broker.py`.
"""

from __future__ import annotations

from strata.queue.accounts import FOR_EVER, IMAGES, REQUESTS, Ledger, Quota, Reservation, Use, Windows, bytes_quota
from strata.queue.broker import PRIORITIES, Claim, Queued
from strata.queue.embedded import EmbeddedServer
from strata.queue.heartbeats import Gpu, Heartbeat, HeldUp, LoadedProfile
from strata.queue.idempotency_keys import IdempotencyKeys
from strata.queue.isolation_notes import WHOLE_CHUNK, IsolationNotes, Notes
from strata.queue.job_events import ImageLayers
from strata.queue.job_list import MAX_SCANNED, JobFilter, ListedJob, entry_of, image_of
from strata.queue.job_states import NO_COPY, OPEN_COUNTS, Bounds, JobProgress, Limit, OpenCounts, WorkingCopy
from strata.queue.queue import Queue
from strata.queue.scheduler_lock import LockState

__all__ = [
    "FOR_EVER",
    "IMAGES",
    "MAX_SCANNED",
    "NO_COPY",
    "OPEN_COUNTS",
    "PRIORITIES",
    "REQUESTS",
    "WHOLE_CHUNK",
    "Bounds",
    "Claim",
    "EmbeddedServer",
    "Gpu",
    "Heartbeat",
    "HeldUp",
    "IdempotencyKeys",
    "ImageLayers",
    "IsolationNotes",
    "JobFilter",
    "JobProgress",
    "Ledger",
    "Limit",
    "ListedJob",
    "LoadedProfile",
    "LockState",
    "Notes",
    "OpenCounts",
    "Queue",
    "Queued",
    "Quota",
    "Reservation",
    "Use",
    "Windows",
    "WorkingCopy",
    "bytes_quota",
    "entry_of",
    "image_of",
]
