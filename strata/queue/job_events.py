"""The events of jobs: changes of status and counted chunks; and the layers of single images while they are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strata.queue import keys
from strata.queue.connection import Connection, translate_errors

FIRST_EVENT = "0-0"  # comes before every event
MAX_EVENTS = 10_000  # about so many events of a job are kept
_READ_EVENTS = 1000
LAYER_BYTES = 2**18  # of a layer as JSON; a larger one is seen in the record at the end
LAYER_SECONDS = 120  # for which the layers of an image are kept after the last of them
_VERSION = "version"  # the field of a hash of layers that counts its changes


@translate_errors
class JobEvents:
    """One stream of events for each job, and one of settled jobs, by ids that increase. All raise QueueUnavailable.

    `add`, the methods of `JobStates` that change a status, `JobStates.record` and `Broker.finish` add events.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def add(self, job_id: str, event: str, **fields: str) -> None:
        """Add an event: its kind, and what more there is to tell."""
        entry: Any = {"event": event, **fields}
        self._redis.xadd(keys.events(job_id), entry, maxlen=MAX_EVENTS)

    def newest(self, job_id: str) -> str:
        """The id of a job's newest event; FIRST_EVENT if there is none."""
        entries: Any = self._redis.xrevrange(keys.events(job_id), count=1)
        return str(entries[0][0]) if entries else FIRST_EVENT

    def after(self, job_id: str, event_id: str) -> list[tuple[str, dict[str, str]]]:
        """The ids and fields of the events after one, in order, at most 1000. Does not wait."""
        reply: Any = self._redis.xread({keys.events(job_id): event_id}, count=_READ_EVENTS)
        return list(reply[0][1]) if reply else []

    # the jobs of one image that have got a result, or never get one

    def newest_settled(self) -> str:
        """The id of the newest entry of the stream of settled jobs; FIRST_EVENT if there is none."""
        entries: Any = self._redis.xrevrange(keys.SETTLED, count=1)
        return str(entries[0][0]) if entries else FIRST_EVENT

    def settled_after(self, entry: str, seconds: float) -> tuple[str, set[str]]:
        """The jobs that were settled after an entry, and the entry after which to read on.

        Waits at most so many seconds for one. The stream is trimmed, so old entries may be missing.
        """
        block = max(1, round(1000 * seconds))
        reply: Any = self._redis.xread({keys.SETTLED: entry}, count=_READ_EVENTS, block=block)
        entries = reply[0][1] if reply else []
        return (entries[-1][0] if entries else entry), {fields["job"] for _, fields in entries}


@translate_errors
class ImageLayers:
    """The layers of single images so far, by chunk, for people who watch. Best effort; all raise QueueUnavailable.

    A hash has one JSON text a layer, which the newer one replaces, so that it is bounded by the number of layers.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection

    def put(self, changed: Mapping[str, Mapping[str, str]]) -> None:
        """Set layers of chunks: by chunk id and by name, as JSON. Those of more than LAYER_BYTES are left out."""
        with self._redis.pipeline(transaction=True) as pipe:
            for chunk_id, layers in changed.items():
                small: Any = {name: text for name, text in layers.items() if len(text) <= LAYER_BYTES}
                if small:
                    key = keys.layers(chunk_id)
                    pipe.hset(key, mapping=small)
                    pipe.hincrby(key, _VERSION, 1)
                    pipe.expire(key, LAYER_SECONDS)
            pipe.execute()

    def versions(self, chunk_ids: Sequence[str]) -> list[str]:
        """For each chunk a text that changes with its layers; "" if it has none."""
        with self._redis.pipeline(transaction=False) as pipe:
            for chunk_id in chunk_ids:
                pipe.hget(keys.layers(chunk_id), _VERSION)
            return [str(found or "") for found in pipe.execute()]

    def of(self, chunk_id: str) -> dict[str, str]:
        """The layers of a chunk so far, as JSON by their names."""
        found: Any = self._redis.hgetall(keys.layers(chunk_id))
        return {str(name): str(text) for name, text in found.items() if name != _VERSION}
