"""Files of a web server. It needs aiohttp, an extra."""

from __future__ import annotations

import asyncio
import errno
import functools
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFile, HTTPFileSystem

from strata.egress import EgressRules, RefusedAddress
from strata.egress.sessions import open_session

SLOWEST = 10 * 2**10  # bytes a second that a server must send
PATIENCE_SECONDS = 60.0  # in addition to what a range takes at that speed


class WebFiles(HTTPFileSystem):  # type: ignore[misc]
    """fsspec's file system of web servers, which connects only to what its rules allow.

    A ranged read takes no more memory and time than its range needs, whatever the server sends.
    """

    def __init__(self, rules: EgressRules, *args: Any, **options: Any) -> None:
        super().__init__(*args, get_client=functools.partial(_session, rules), **options)

    async def _info(self, url: str, **options: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await super()._info(url, **options)
            return found
        except FileNotFoundError as error:  # what fsspec makes of every error
            if isinstance(error.__cause__, RefusedAddress):
                raise error.__cause__ from None
            raise

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        file = super()._open(path, *args, **options)
        # its own would read all that the server sends
        if isinstance(file, HTTPFile):
            file.cache.fetcher = functools.partial(self.cat_file, path)
        return file

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        if start is None or end is None or not 0 <= start < end:
            found: bytes = await super()._cat_file(url, start, end, **options)
            return found
        async with asyncio.timeout(PATIENCE_SECONDS + (end - start) / SLOWEST):
            return await self._range(url, start, end)

    async def _range(self, url: str, start: int, end: int) -> bytes:
        """Bytes start..end of a file, fewer if it is shorter."""
        session: aiohttp.ClientSession = await self.set_session()
        # a compressed body can expand to any size, and its offsets are those of the compressed one
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        async with session.get(self.encode_url(url), **{**self.kwargs, "headers": headers}) as response:
            self._raise_not_found_for_status(response, url)
            # a server that ignores the range sends the file from its beginning
            if start and response.status != 206:
                raise OSError(errno.EINVAL, "its server does not send parts of files")
            data = bytearray()
            while len(data) < end - start:
                piece = await response.content.read(end - start - len(data))
                if not piece:
                    break
                data += piece
            return bytes(data)


async def _session(rules: EgressRules, loop: asyncio.AbstractEventLoop | None = None, **options: Any) -> Any:
    return await open_session(rules, **options)
