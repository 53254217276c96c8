"""Whether an address is asked by way of the environment's proxy."""

from __future__ import annotations

import httpx


def proxied(url: str) -> bool:
    """False for this machine's own loopback, which no proxy can reach; httpx takes it as `trust_env`."""
    return httpx.URL(url).host not in ("127.0.0.1", "localhost", "::1")
