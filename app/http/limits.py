"""The limits of the HTTP server in one table: what one caller, and all callers together, can make it hold.

Limits that an operator may want to change are settings instead (`STRATA_MAX_BODY_BYTES`, `STRATA_MAX_PIXELS`). A
request that exceeds a limit gets its problem of `problem_types.py`, unless a comment here says what happens instead, or
the connection can only be closed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may hold, and for how long. Times are in seconds, sizes in bytes, rates in bytes per second.

    connections: open at a time; per_address: of them, those of one address (all callers behind a proxy have one);
    request_seconds: from the start of a connection, or from its last answer, to the end of a request's head;
    transfer_seconds: for a body to arrive, or for an answer to be read, and more time for each byte at min_rate;
    head_bytes: request line and headers; unsent_bytes: answers of all connections that callers have not read yet.
    """

    connections: int = 1500
    per_address: int = 1000
    request_seconds: float = 15.0
    transfer_seconds: float = 20.0
    min_rate: int = 16 * 2**10
    head_bytes: int = 16 * 2**10
    unsent_bytes: int = 64 * 2**20


READ_BYTES = 2**15  # that are read of a connection at once
TURN_SECONDS = 0.005  # for which what connections have sent is parsed before others have their turn
CHUNK_BYTES = 64  # that the chunks of a body have on average
FREE_CHUNKS = 512  # of a body that may be smaller
FRAMING_BYTES = 2**16  # of a body beside twice its content
MAX_HEADERS = 100
MAX_QUERY_PARAMETERS = 64
MAX_JSON_DEPTH = 32
MAX_JSON_VALUES = 120_000  # a request for jobs may have 100,000 shards
MAX_JSON_KEYS = 1000
MAX_STREAMS = 256  # answers of `/events` that are open at a time
MAX_STREAMS_OF_CALLER = 64
MAX_WAITS = 1000  # requests with `Prefer: wait` that wait at a time; the others get 202 at once
LARGE_ANSWERS = 3  # pages of results, and images, that are made at a time; the others wait
LIST_BYTES = 2 * 2**20  # of a page of the list of jobs, after which it ends
LISTED_METADATA = 2**14  # bytes of a job's metadata, above which the list does not show it
BODY_BYTES_IN_FLIGHT = 40 * 2**20  # of all requests; decoding base64 needs as much again, for one request at a time
SHOWN_IMAGE_BYTES = 40 * 2**20  # of an image of a shard; an upload is shown whatever its size
