"""The HTTP client of the service."""

from __future__ import annotations

from strata.client.client import ApiError, Client, pause_of, proxied

__all__ = [
    "ApiError",
    "Client",
    "pause_of",
    "proxied",
]
