"""The HTTP client of the service, for the command line and for programs.

Of Strata's packages it imports only `strata.core`. Read `client.py`; `responses.py` has the errors.
"""

from __future__ import annotations

from strata.client.client import Client, proxied
from strata.client.responses import ApiError, pause_of

__all__ = [
    "ApiError",
    "Client",
    "pause_of",
    "proxied",
]
