"""The HTTP clients of the service, for the command line and for programs.

Of Strata's packages it imports only `strata.core`. Read `client.py`, then `calls.py`; `responses.py` has the errors.
"""

from __future__ import annotations

from strata.client.bulk import Sent, send_images
from strata.client.client import AsyncClient, Client, proxied
from strata.client.responses import ApiError, pause_of

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "Sent",
    "pause_of",
    "proxied",
    "send_images",
]
