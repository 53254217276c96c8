"""The audit log: who has done what, when, from where, and how it ended; a JSON object a line of the logger AUDIT.

It has ids only: no secret, no caption, no name of a file, and of addresses of the API the template without its values.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.prefix import V1, is_below_v1
from strata.errors import InvalidInput

AUDIT = "strata.audit"
_log = logging.getLogger(AUDIT)
_ENTRY = "strata.audit"  # where a connection's scope has what is known of the request
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED_KEY = frozenset({401, 403})


class AuditTrail:
    """ASGI middleware: writes a line for each request below V1 that may change something, or whose key is refused.

    reads: also for all others.
    """

    def __init__(self, app: ASGIApp, reads: bool) -> None:
        self.app, self.reads = app, reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if not is_below_v1(scope):
            await self.app(scope, receive, send)
            return
        entry: dict[str, Any] = {}
        scope[_ENTRY] = entry

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
                location = next((value for name, value in message["headers"] if name.lower() == b"location"), b"")
                if location.startswith(f"{V1}/jobs/".encode()):
                    entry.setdefault("job", location.decode("latin-1").rpartition("/")[2])
            await send(message)

        try:
            await self.app(scope, receive, send_noted)
        finally:
            if self.reads or scope["method"] not in _READING or entry.get("status") in _REFUSED_KEY:
                _log.info(json.dumps(_line(scope, entry)))


def note_audit(scope: Scope, **known: str | None) -> None:
    """Remember of a request what the log is to have: key, tenant, via, operation, job. What is None stays unknown."""
    if _ENTRY in scope:
        scope[_ENTRY].update({name: text[:100] for name, text in known.items() if text is not None})


@contextmanager
def audit_file(path: Path | None) -> Iterator[None]:
    """Within the block the audit log goes to a file of its own; None: into the log of the process.

    The file may be moved away, as logrotate does: then a new one is begun. Raises InvalidInput if it cannot be written.
    """
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        handler = WatchedFileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"STRATA_AUDIT_LOG: {path} cannot be written: {error.strerror or error}") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.level, _log.propagate = before
        handler.close()


def _line(scope: Scope, entry: dict[str, Any]) -> dict[str, Any]:
    """The object of a request. Without an operation the address is none, or it was refused before it was looked at."""
    status = entry.get("status")
    client = scope.get("client")
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "key": entry.get("key"),
        "tenant": entry.get("tenant"),
        "via": entry.get("via"),
        "address": client[0] if client else None,
        "operation": entry.get("operation") or scope["method"],
        "job": entry.get("job"),
        "status": status,
        "outcome": _outcome(status),
    }


def _outcome(status: int | None) -> str:
    if status is None:
        return "failed"
    return "done" if status < 400 else "refused" if status < 500 else "failed"
