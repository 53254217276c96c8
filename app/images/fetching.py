"""Fetching `image_url` without giving callers access to the service's own network (server-side request forgery).

Every host is resolved here, and all its addresses must be public. The connection is made to an address that was
checked, so that a name that resolves to another address the second time (DNS rebinding) has no effect. Redirects are
checked in the same way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urljoin

import httpx

from app.problems import ProblemError

TIMEOUT = 10.0  # seconds, from the first DNS query to the last byte
MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
# the well-known prefix of RFC 6052
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HEADERS = {"User-Agent": "strata", "Accept": "image/*", "Accept-Encoding": "identity"}


async def fetch(url: str, private: bool, limit: int) -> bytes:
    """Download at most `limit` bytes of a URL. private: whether private addresses are allowed. Raises ProblemError."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return await _fetch(url, private, limit)
    except TimeoutError as error:
        raise _failed(f"no complete response within {TIMEOUT:g} seconds") from error
    # every failure of the transfer is the caller's problem 422, never an error of this service
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise _failed(str(error) or type(error).__name__) from error


async def _fetch(url: str, private: bool, limit: int) -> bytes:
    # redirects are followed here, not by httpx, so that each of their hosts is checked too
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT) as client:
        for _ in range(MAX_REDIRECTS + 1):
            # check the host of each redirect like that of the first URL
            request = await _checked_request(client, url, private)
            response = await client.send(request, stream=True)
            try:
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    url = urljoin(url, response.headers["location"])
                    continue
                if not response.is_success:
                    raise _failed(f"the server responded with status {response.status_code}")
                return await _read(response, limit)
            finally:
                await response.aclose()
    raise _failed(f"more than {MAX_REDIRECTS} redirects")


async def _read(response: httpx.Response, limit: int) -> bytes:
    data = bytearray()
    # raw bytes without decompression: a small compressed body can expand to any size
    async for piece in response.aiter_raw():
        data += piece
        if len(data) > limit:
            raise _failed(f"more than {limit} bytes")
    return bytes(data)


async def _checked_request(client: httpx.AsyncClient, text: str, private: bool) -> httpx.Request:
    """Build a request that connects to a checked address of the URL's host."""
    # accept only http and https, with a host and without credentials
    try:
        url = httpx.URL(text)
        host, port = url.raw_host.decode("ascii").strip("[]"), url.port
    except (httpx.InvalidURL, ValueError) as error:
        raise ProblemError("refused-url", f"it is not a valid URL: {error}") from error
    if url.scheme not in ("http", "https") or not host:
        raise ProblemError("refused-url", "image_url must begin with http:// or https:// and name a host")
    if url.userinfo:
        raise ProblemError("refused-url", "image_url must not carry a user name or password")
    # connect to the checked address, but send the host's name in the header and in the TLS handshake
    address = (await _addresses(host, port or (443 if url.scheme == "https" else 80), private))[0]
    headers = {**_HEADERS, "Host": url.netloc.decode("ascii")}
    extensions = {"sni_hostname": host, "timeout": httpx.Timeout(TIMEOUT).as_dict()}
    return client.build_request("GET", url.copy_with(host=address), headers=headers, extensions=extensions)


async def _addresses(host: str, port: int, private: bool) -> list[str]:
    """The IP addresses of a host. Raises ProblemError if there are none, or if one is not public and must be."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        raise _failed(f"the host {host[:100]!r} cannot be found") from error
    # one private address among public ones is an error: the result must not depend on the order of a DNS response
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses:
        raise _failed(f"the host {host[:100]!r} has no address")
    if not private and not all(is_public(address) for address in addresses):
        raise ProblemError("refused-url", f"the host {host[:100]!r} has an address that is not public")
    return addresses


def is_public(text: str) -> bool:
    """Whether an IP address is public. An IPv4 address that is embedded in an IPv6 address is checked too."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # ::ffff:0:0/96 reaches IPv4 hosts directly
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        # 6to4, Teredo and NAT64 addresses contain IPv4 addresses that a gateway may reach
        if address.sixtofour is not None or address.teredo is not None or address in _NAT64:
            return False
    return address.is_global and not address.is_multicast


def _failed(reason: str) -> ProblemError:
    return ProblemError("image-not-fetched", f"image_url could not be fetched: {reason}")
