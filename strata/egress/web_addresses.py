"""The web addresses that a caller gives, taken apart strictly.

A URL that two programs read differently is refused, because what is checked must be what is connected to: numbers that
the system takes for an IPv4 address (`0x7f.1`, `2130706433`), escapes and zones in a host, a user name, a backslash.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import idna

from strata.errors import InvalidInput

DEFAULT_PORTS = {"http": 80, "https": 443}
# RFC 3986, appendix B: scheme and authority; an authority ends at the first / ? or #
_FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::(.*))?", re.DOTALL)
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a last label that makes a host an IPv4 address, as browsers read it
_MAX_HOST = 253  # characters of a name in the DNS


class RefusedAddress(InvalidInput, ValueError):
    """The service does not connect to this address for a caller. The message names at most the host."""


@dataclass(frozen=True)
class WebAddress:
    """Scheme, host and port of a URL. host: a name in lower case (in the form of the DNS), or an IP address."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> WebAddress:
        """Take a URL apart. Raises RefusedAddress."""
        found = _FORM.match(url)
        scheme = found[1].lower() if found else ""
        if found is None or scheme not in DEFAULT_PORTS:
            raise RefusedAddress("the URL must begin with http:// or https:// and name a host")
        # white space and control characters are read differently, and some programs remove them
        if any(character.isspace() or not character.isprintable() for character in url):
            raise RefusedAddress("the URL has white space or a control character; write a blank as %20")
        if "@" in found[2]:
            raise RefusedAddress("the URL must not have a user name or password")
        parts = _AUTHORITY.fullmatch(found[2])
        if parts is None:
            raise RefusedAddress("the host of the URL is not valid")
        port = parts[2]
        if port is not None and not (_PORT.fullmatch(port) and int(port) < 65536):
            raise RefusedAddress("the port of the URL is not a number from 1 to 65535")
        return cls.of(scheme, parts[1], int(port) if port else DEFAULT_PORTS[scheme])

    @classmethod
    def of(cls, scheme: str, host: str, port: int) -> WebAddress:
        """The address of a scheme, a host (an IPv6 address with or without brackets) and a port.

        Raises RefusedAddress.
        """
        if host.startswith("[") or ":" in host:
            return cls(scheme, _ipv6(host.removeprefix("[").removesuffix("]")), port)
        return cls(scheme, _name(host), port)

    @property
    def literal(self) -> bool:
        """Whether the host is an IP address."""
        return ":" in self.host or self.host.replace(".", "").isdigit()


def host_pattern(text: str) -> str:
    """A host, or `*.` and a domain, in the form of the DNS. Raises RefusedAddress if it is neither."""
    wild = "*." if text.startswith("*.") else ""
    return wild + WebAddress.of("https", text.removeprefix(wild), DEFAULT_PORTS["https"]).host


def matches_host(host: str, pattern: str) -> bool:
    """Whether a host, in the form of the DNS, is the one of a pattern, or lies below the domain of one with `*.`."""
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def origin_of(uri: str) -> tuple[str, int] | None:
    """Host and port of a web address that the operator has configured; None for other URIs, and if it has no host."""
    try:
        parts = urlsplit(uri)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        return WebAddress.of(parts.scheme, parts.hostname or "", port).host, port
    except (KeyError, ValueError):
        return None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise RefusedAddress("the host of the URL has a zone")
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise RefusedAddress("the host of the URL is not a valid IPv6 address") from None


def _name(text: str) -> str:
    """A host's name in the form of the DNS, or its IPv4 address."""
    host = text.lower()
    if not host.isascii():
        try:
            host = idna.encode(text, uts46=True).decode("ascii")
        except UnicodeError:
            raise RefusedAddress(f"the host {text[:100]!r} is not valid") from None
    labels = host.split(".")
    # a dot at the end, an escape, a backslash and an empty name are no labels
    if len(host) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise RefusedAddress(f"the host {text[:100]!r} is not valid")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise RefusedAddress("an IPv4 address must be four decimal numbers without leading zeros") from None
    return host
