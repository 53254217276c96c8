"""Addresses: the network of a client, and whether a host is this machine only."""

from __future__ import annotations

import ipaddress
import socket

from strata.errors import InvalidInput


def network_of(host: str) -> str:
    """The address of a client; of an IPv6 address its network of 64 bits, because one host has all of it."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host


def is_loopback(host: str) -> bool:
    """Whether every address of the host is loopback. Raises InvalidInput if the host cannot be resolved."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"STRATA_HOST or --host: {host!r} cannot be resolved to an address: {reason}") from error
    return bool(found) and all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)
