"""Who has sent a request: the network of its client, and the caller whose turns and limits it takes."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Annotated

from fastapi import Depends, Request

from app.dependencies import services


def network_of(host: str) -> str:
    """The address of a client; of an IPv6 address its network of 64 bits, because one host has all of it."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host


async def caller_of(request: Request) -> str:
    """Whose turns a request takes in the queue: an opaque text for its API key and its client's network."""
    network = network_of(request.client.host if request.client else "")
    # the key is one that was checked: any other text would let a client be as many callers as it likes
    key = services(request).settings.api_key
    return hashlib.sha256(f"{key.get_secret_value() if key else ''}\0{network}".encode()).hexdigest()[:16]


Caller = Annotated[str, Depends(caller_of)]
