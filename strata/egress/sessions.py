"""Sessions of aiohttp that connect only to what the rules allow, redirects included. It needs aiohttp, an extra."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult

from strata.egress.rules import EgressRules
from strata.egress.web_addresses import WebAddress

# a name server that does not answer holds a thread for half a minute; no other work waits for these threads
_LOOKUPS = ThreadPoolExecutor(16, thread_name_prefix="dns")


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The TLS settings of all connections of this process; reading the certificates takes 25 ms."""
    paths = ssl.get_default_verify_paths()
    own = any(path and Path(path).exists() for path in (paths.cafile, paths.capath))
    # a slim container has no certificates of its own
    return ssl.create_default_context(cafile=None if own else certifi.where())


async def open_session(rules: EgressRules, **options: Any) -> aiohttp.ClientSession:
    """A session that raises RefusedAddress for what the rules do not allow. options: others of `ClientSession`."""
    resolver = _Resolver(rules)
    context = await asyncio.to_thread(tls_context)  # the first time it takes long
    connector = aiohttp.TCPConnector(resolver=resolver, ssl=context, limit_per_host=64)

    async def check(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        # called for the first request and for each redirect, with the host and port that is connected to
        url = request.url
        rules.check(WebAddress.of(url.scheme, url.raw_host or "", url.port or 0))
        # the user's configuration of fsspec may name a proxy: then it, and not we, resolves the host's name
        if request.proxy is not None:
            resolver.proxies.add((request.proxy.raw_host or "", request.proxy.port or 0))
        return await send(request)

    return aiohttp.ClientSession(connector=connector, middlewares=(check,), **options)


def failure_reason(error: Exception) -> str:
    """Why a request of a session has no response, in words that do not contain the address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host {error.host[:100]!r} cannot be found"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "the server's certificate is not valid, or it does not speak TLS"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the server cannot be reached: {error.os_error.strerror or type(error.os_error).__name__}"
    if isinstance(error, aiohttp.InvalidURL):
        return "the server redirects to an address that is not valid"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | aiohttp.ClientOSError):
        return "the connection broke before the response was complete"
    return f"the response is not valid ({type(error).__name__})"


class _Resolver(AbstractResolver):
    """Resolves a host's name, and gives the connector its addresses only if all of them are allowed."""

    def __init__(self, rules: EgressRules) -> None:
        self._rules = rules
        self.proxies: set[tuple[str, int]] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError if it is not found, and RefusedAddress."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(_LOOKUPS, _look_up, host, port, family)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses:
            raise OSError(None, "the host has no address")
        if (host, port) not in self.proxies:
            self._rules.check_addresses(host, port, addresses)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address, port=port, family=entry[0], proto=entry[2], flags=flags)
            for entry, address in zip(found, addresses, strict=True)
        ]

    async def close(self) -> None:
        """Nothing is open."""


def _look_up(host: str, port: int, family: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(None, str(error)) from error
