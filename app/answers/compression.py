"""Answers are compressed as a request's `Accept-Encoding` allows: with Zstandard (RFC 8878), else with gzip.

Starlette's responders do it: what a route streams is compressed piece by piece and each piece is sent at once, large
pieces are compressed in a thread, and pictures, parts of files and event streams are left as they are.
"""

from __future__ import annotations

import re
import sys
from functools import cached_property

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipResponder, IdentityResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Compression", "chosen_encoding", "zstd"]

MIN_BYTES = 1024  # smaller answers do not gain
GZIP_LEVEL = 5
ZSTD_LEVEL = 3  # its window is 2 MiB; RFC 9659 allows 8
_IN_THREAD = 128 * 1024  # bytes of a piece that is compressed in a thread
_LEFT = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "image/*", "application/octet-stream")
# RFC 9110, section 12.5.3: an encoding, and its weight with up to three decimals
_MEMBER = re.compile(
    r"[ \t]*([\w!#$%&'*+.^`|~-]+)[ \t]*(?:;[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*)?", re.I | re.A
)


class Compression:
    """ASGI middleware: compresses what the application answers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        encoding = chosen_encoding(Headers(scope=scope).getlist("accept-encoding"))
        await _responder(encoding, self.app)(scope, receive, _weak_tags(send))


def chosen_encoding(accepted: list[str]) -> str:
    """`zstd`, `gzip` or `identity`, by the values of `Accept-Encoding`; members that cannot be read have no effect."""
    weights: dict[str, float] = {}
    for member in ",".join(accepted).split(","):
        if match := _MEMBER.fullmatch(member):
            weights.setdefault(match[1].lower(), float(match[2] or 1))
    plain = weights.get("identity", 0.0)
    found = {name: weights.get(name, weights.get("*", 0.0)) for name in ("zstd", "gzip")}
    # of two with one weight the first, which is quicker and smaller
    best = max(found, key=found.__getitem__)
    return best if found[best] > 0 and found[best] >= plain else "identity"


class _Zstandard(IdentityResponder):
    """Starlette's way to compress, with Zstandard."""

    content_encoding = "zstd"

    @cached_property
    def _compressor(self) -> zstd.ZstdCompressor:
        """Made for the first piece: most answers are too small to be compressed."""
        return zstd.ZstdCompressor(level=ZSTD_LEVEL)

    async def apply_compression(self, body: bytes, *, more_body: bool) -> bytes:
        """The compressed form of the next piece, all of it."""
        if len(body) < _IN_THREAD:
            return self._compress(body, more_body)
        return await anyio.to_thread.run_sync(self._compress, body, more_body)

    def _compress(self, body: bytes, more_body: bool) -> bytes:
        compress, modes = self._compressor.compress, zstd.ZstdCompressor
        return compress(body, modes.FLUSH_BLOCK) if more_body else compress(body, modes.FLUSH_FRAME)


def _responder(encoding: str, app: ASGIApp) -> ASGIApp:
    if encoding == "zstd":
        return _Zstandard(app, MIN_BYTES, exclude_content_types=_LEFT)
    if encoding == "gzip":
        return GZipResponder(app, MIN_BYTES, GZIP_LEVEL, thread_minimum_size=_IN_THREAD, exclude_content_types=_LEFT)
    return IdentityResponder(app, MIN_BYTES, exclude_content_types=_LEFT)


def _weak_tags(send: Send) -> Send:
    """Send a compressed answer's ETag as a weak one: a strong one stands for the bytes as they are sent."""

    async def send_weak(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            tag = headers.get("etag", "")
            if "content-encoding" in headers and tag and not tag.startswith("W/"):
                headers["ETag"] = f"W/{tag}"
        await send(message)

    return send_weak
