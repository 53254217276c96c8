"""uvicorn as the service uses it: with limits and deadlines for its connections."""

from __future__ import annotations

import logging
import os
import resource
import socket
import threading
from dataclasses import replace
from math import ceil
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.http.connections import Connection, Connections
from app.http.limits import ConnectionLimits
from strata.addresses import AddressError, path_prefix

GRACE_SECONDS = 5  # for requests in flight at shutdown
CHECK_TICKS = 5  # of 0.1 s between two checks of all connections
BACKLOG = 2048  # connections that wait to be accepted
ACCEPTED_AT_ONCE = 32
DESCRIPTORS = 65_536  # that the process uses if it may: more make some programs that it starts slow


class HttpServer(uvicorn.Server):
    """uvicorn with limits and deadlines for its connections.

    It sets `stopping` when it shuts down, so that waiting requests return instead of being cancelled.
    """

    server_state: Connections

    def __init__(self, app: FastAPI, limits: ConnectionLimits) -> None:
        # headers that anybody can send would let a client be as many callers as it likes
        trusted = os.environ.get("FORWARDED_ALLOW_IPS")
        config = uvicorn.Config(
            app if trusted is None else Proxies(cast(Any, app), trusted),
            http=Connection,
            ws="none",
            loop="asyncio",  # whose transports `Connection` knows
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # `Proxies` reads them
            timeout_keep_alive=ceil(limits.request_seconds),
            timeout_graceful_shutdown=GRACE_SECONDS,
            h11_max_incomplete_event_size=limits.head_bytes,
            backlog=min(ACCEPTED_AT_ONCE, limits.connections // 8 + 1),
        )
        super().__init__(config)
        logging.getLogger("uvicorn.error").addFilter(_is_worth_a_line)
        self.server_state = Connections(limits)
        self._stopping: threading.Event = app.state.services.stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        # asyncio accepts as many connections at once as its backlog has: few, so that `Connections` sees them before
        # the descriptors are used up, after which asyncio would try each of the others in vain; many may wait
        for listening in sockets or []:
            listening.listen(BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        """Called every 0.1 s: also checks the connections."""
        if counter % CHECK_TICKS == 0:
            self.server_state.check()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listening sockets, and wait for the requests in flight."""
        self._stopping.set()
        await super().shutdown(sockets)


class Proxies(ProxyHeadersMiddleware):
    """uvicorn's middleware for X-Forwarded-For and X-Forwarded-Proto of trusted proxies.

    It reads X-Forwarded-Prefix too, which proxies send that strip a path prefix (Traefik's StripPrefix does by itself).
    One that cannot be used has no effect.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one connection."""
        client = scope.get("client")
        if scope["type"] == "http" and (client[0] if client else None) in self.trusted_hosts:
            scope["root_path"] = scope.get("root_path") or _forwarded_prefix(scope["headers"])
        await super().__call__(scope, receive, send)


def _forwarded_prefix(headers: list[tuple[bytes, bytes]]) -> str:
    """The prefix of a request's headers, the first if there are several; empty if there is none that can be used."""
    value = next((value for name, value in headers if name == b"x-forwarded-prefix"), b"")
    try:
        return path_prefix(value.decode("latin-1").partition(",")[0])
    except AddressError:
        return ""


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """False for the lines about bytes that are not valid HTTP: anybody could fill the log with them."""
    return record.getMessage() not in ("Invalid HTTP request received.", "Unsupported upgrade request.")


def connection_limits() -> ConnectionLimits:
    """The limits of connections, after the process was allowed as many descriptors as it may have.

    Half of them are for connections, the others for files, for Redis and for the storage.
    """
    limits = ConnectionLimits()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        allowed = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
        soft = max(soft, allowed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        most = min(limits.connections, soft // 2)
        limits = replace(limits, connections=most, per_address=min(limits.per_address, most * 2 // 3))
    return limits
