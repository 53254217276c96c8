"""The network of a client: what counts as one address."""

from __future__ import annotations

import ipaddress


def network_of(host: str) -> str:
    """The address of a client; of an IPv6 address its network of 64 bits, because one host has all of it."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
