"""The HTTP client of the service, for the command line and for programs. It imports only `strata.core`.

Read `client.py`.
"""

from __future__ import annotations

from strata.client.client import ApiError, Client, pause_of, proxied

__all__ = [
    "ApiError",
    "Client",
    "pause_of",
    "proxied",
]
