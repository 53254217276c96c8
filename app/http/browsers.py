"""What a browser may do here: answers are used by this service's own pages only, whatever other pages are open in it.

A page of another site can make a browser send requests to a service that listens on loopback or in a local network,
and can give its own host a new address (DNS rebinding) to read the answers. So the host of every request must be one of
this service's, and a request that a browser sends for another origin is refused, before anything else is looked at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.prefix import is_below_v1, is_link
from app.problems import ProblemError
from strata.egress import matches_host

# what all policies have in common; a page adds the sources that it loads from
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# the headers of every answer that does not set them itself; OWASP's REST Security and HTTP Headers cheat sheets
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # not no-referrer, with which a browser sends `Origin: null` for the forms of a page of ours
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_VARY = (b"vary", b"Origin, Sec-Fetch-Site")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"(?<=[^:]):(80|443)$")


class BrowserGuard:
    """ASGI middleware around all others: it checks host and origin, and adds HEADERS to every answer.

    hosts: the names of the service, as `example.org` or `*.example.org`; `*` stands for every name. origins: those
    whose pages may use the service, as `https://example.org`.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self.app, self.hosts, self.origins = app, tuple(hosts), frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = with_headers(message["headers"])
            await send(message)

        refusal = self._refusal(scope)
        await (refusal.response() if refusal else self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> ProblemError | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host")
        # only clients that are no browsers send none
        if host is not None and not is_served(host, self.hosts):
            detail = f"the service does not serve the host {host[:100]!r}; STRATA_ALLOWED_HOSTS can allow it"
            return ProblemError("host-not-allowed", detail)
        # an image by a link may be shown anywhere: `KeyCheck` looks at nothing but the link then
        if not self._is_own(headers, host) and not _opens_page(scope, headers) and not is_link(scope):
            detail = "a page of another origin sent this request; STRATA_CORS_ORIGINS can allow the origin"
            return ProblemError("origin-not-allowed", detail)
        return None

    def _is_own(self, headers: Mapping[str, str], host: str | None) -> bool:
        """Whether no browser sent the request for a page of another origin."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self.origins:
            return True
        # browsers send it to loopback and over TLS; a page cannot change it. `none`: a person typed the address
        if site is not None:
            return site in ("same-origin", "none")
        # a page without TLS in a local network: browsers send Origin with every request but a plain GET, and a page
        # of another origin cannot read the answer to that
        return origin is None or _netloc(origin.partition("://")[2]) == _netloc(host or "")


def with_headers(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer, with those of HEADERS that it has not; names are in lower case."""
    given = list(raw)
    present = {name for name, _ in given}
    return [*given, *(pair for pair in _RAW_HEADERS if pair[0] not in present), _VARY]


def is_served(host: str, hosts: Sequence[str]) -> bool:
    """Whether a Host header names this service.

    Every IP address does, because only a name can be given another address: a page at an address comes from there. So
    probes by address need no setting.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or _is_address(name):
        return True
    return any(pattern == "*" or matches_host(name, pattern) for pattern in hosts)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _netloc(text: str) -> str:
    return _DEFAULT_PORT.sub("", text.lower())


def _opens_page(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a person follows a link of another site to a page of ours, which no page can look into."""
    navigates = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return scope["method"] == "GET" and navigates and not is_below_v1(scope)
