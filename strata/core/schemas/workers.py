"""Workers, and what they have still to compute: `/v1/workers`, `/v1/backlog`."""

from __future__ import annotations

from pydantic import BaseModel


class GroupBacklog(BaseModel):
    """What a group has still to compute for all unfinished jobs.

    images: of all indexed shards; ready: those of them for which the group before has computed its layers; shards: that
    wait to be indexed (group `index` only); oldest_seconds: since the oldest of these jobs was created, null if none.
    """

    images: int = 0
    ready: int = 0
    shards: int = 0
    oldest_seconds: float | None = None


class Backlog(BaseModel):
    """`GET /v1/backlog`: the whole plan of all unfinished jobs by group. The queue's streams have only its beginning.

    jobs: how many are unfinished; workers: ready workers by group.
    """

    jobs: int
    groups: dict[str, GroupBacklog]
    workers: dict[str, int]


class WorkerView(BaseModel):
    """A worker that reports. chunks, images: in its hands now; held_up: what it waits for, as the store.

    profiles: whose models it has in memory; resident_bytes: its memory; gpu_reserved_bytes: of all its GPUs.
    """

    name: str
    host: str = ""
    groups: list[str]
    ready: bool
    chunks: int = 0
    images: int = 0
    held_up: list[str] = []
    profiles: list[str] = []
    resident_bytes: int = 0
    gpu_reserved_bytes: int = 0


class WorkerList(BaseModel):
    """`GET /v1/workers`."""

    workers: list[WorkerView]
