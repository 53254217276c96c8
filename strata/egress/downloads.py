"""Download a small file of which a caller has given the address."""

from __future__ import annotations

import asyncio

import aiohttp

from strata.egress.rules import EgressRules
from strata.egress.sessions import failure_reason, open_session
from strata.egress.web_addresses import RefusedAddress, WebAddress
from strata.errors import StrataError

MAX_REDIRECTS = 3
_PIECE = 2**16  # bytes read at a time
# identity: a small compressed body can expand to any size
_HEADERS = {"User-Agent": "strata", "Accept": "image/*", "Accept-Encoding": "identity"}


class DownloadFailed(StrataError):
    """A file could not be downloaded. The message has the reason and not the address."""


class Pool:
    """A limit on the bytes that downloads of an event loop hold at a time. Raises OverflowError where it is full."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, count: int) -> None:
        """Count bytes that were received. Raises OverflowError if there is no room for them."""
        if self.held + count > self.limit:
            raise OverflowError(f"{self.held} bytes are held")
        self.held += count

    def give_back(self, count: int) -> None:
        """Count bytes that are no longer held by a download."""
        self.held -= count


async def download(url: str, rules: EgressRules, limit: int, seconds: float, pool: Pool) -> bytes:
    """Download at most `limit` bytes, within `seconds` from the first DNS query to the last byte.

    Raises RefusedAddress for an address that the rules do not allow, DownloadFailed, and OverflowError if the pool is
    full. aiohttp bounds the head of a response (8,190 bytes a line, 128 fields).
    """
    rules.check(WebAddress.parse(url))
    try:
        async with asyncio.timeout(seconds):
            return await _download(url, rules, limit, pool)
    except RefusedAddress:
        raise
    except TimeoutError:
        raise DownloadFailed(f"no complete response within {seconds:g} seconds") from None
    except aiohttp.TooManyRedirects:
        raise DownloadFailed(f"more than {MAX_REDIRECTS} redirects") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise DownloadFailed(failure_reason(error)) from error


async def _download(url: str, rules: EgressRules, limit: int, pool: Pool) -> bytes:
    options = {"auto_decompress": False, "cookie_jar": aiohttp.DummyCookieJar(), "headers": _HEADERS}
    async with (
        await open_session(rules, timeout=aiohttp.ClientTimeout(), **options) as session,
        session.get(url, max_redirects=MAX_REDIRECTS + 1) as response,
    ):
        if not response.ok or response.status in (301, 302, 303, 307, 308):  # a redirect without an address
            raise DownloadFailed(f"the server responded with status {response.status}")
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise DownloadFailed("the response is compressed, which was not asked for")
        if (response.content_length or 0) > limit:
            raise DownloadFailed(f"more than {limit} bytes")
        return await _read(response, limit, pool)


async def _read(response: aiohttp.ClientResponse, limit: int, pool: Pool) -> bytes:
    data = bytearray()
    try:
        async for piece in response.content.iter_chunked(_PIECE):
            pool.take(len(piece))
            data += piece
            if len(data) > limit:
                raise DownloadFailed(f"more than {limit} bytes")
        return bytes(data)
    finally:
        pool.give_back(len(data))
