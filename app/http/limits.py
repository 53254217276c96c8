"""The limits of the HTTP server in one table: what one caller, and all callers together, can make it hold.

Limits that an operator may want to change are settings instead (`STRATA_MAX_BODY_BYTES`, `STRATA_MAX_PIXELS`). Each
limit here has its problem in `problem_types.py`, except those after which a connection can only be closed.
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
    unsent_bytes: int = 128 * 2**20
