"""The HTTP clients of the REST service, for the command line and for programs: `Client` blocks, `AsyncClient` awaits.

Their methods are in `calls.py` and the modules that it names, written once for both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import httpx

from strata.addresses import clean_key
from strata.client.calls import Calls
from strata.client.steps import Asynchronous, AsyncPerformer, Performer, Synchronous
from strata.core import Problem

OnWait = Callable[[float, Problem], None]


class Client(Calls, Synchronous):
    """Calls the service at `base_url`. timeout: seconds to wait for a response. Use it in `with`, or call `close`.

    patience: seconds to wait in all while the service's queue takes nothing more; on_wait: called before each of these
    pauses, with its seconds and the problem.
    White space around api_key is removed; AddressError is raised if it cannot be sent in a header.
    Every method raises ApiError for an error response, and httpx.TransportError if the service cannot be reached.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        *,
        on_wait: OnWait | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(**_options(base_url, api_key, timeout), transport=transport)
        self._performer = Performer(self._http, sleep)
        self._timeout, self._patience, self._on_wait = timeout, patience, on_wait

    @property
    def url(self) -> str:
        """The address of the service, at which its studio is too."""
        return str(self._http.base_url).rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class AsyncClient(Calls, Asynchronous):
    """As Client, for programs with asyncio: its methods are awaited, and `watch`, `events`, `results` and `failures`
    are asynchronous iterators. Use it in `async with`, or await `aclose`. Many calls may be made at a time.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        *,
        on_wait: OnWait | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(**_options(base_url, api_key, timeout), transport=transport)
        self._performer = AsyncPerformer(self._http, sleep)
        self._timeout, self._patience, self._on_wait = timeout, patience, on_wait

    @property
    def url(self) -> str:
        """The address of the service, at which its studio is too."""
        return str(self._http.base_url).rstrip("/")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _options(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    # as bytes, because httpx would encode a text as ASCII
    headers = {b"Authorization": b"Bearer " + clean_key(api_key, "the API key").encode()} if api_key else {}
    far = proxied(base_url)
    if not far:
        headers[b"Accept-Encoding"] = b"identity"  # within one machine bytes cost less than to compress them
    return {"base_url": base_url, "headers": headers, "timeout": timeout, "trust_env": far}


def proxied(url: str) -> bool:
    """Whether requests to the address may use the environment's proxy (httpx's `trust_env`).

    False for this machine's loopback addresses, which no proxy can reach.
    """
    # httpx does not exempt loopback addresses from HTTP_PROXY unless NO_PROXY lists them
    return httpx.URL(url).host not in ("127.0.0.1", "localhost", "::1")
