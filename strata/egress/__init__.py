"""Egress: which addresses the service may connect to for a caller, and how it connects to them and to no other.

Read `rules.py` first; `networks.py` has the table of networks that are not public. Only `sessions.py` and
`downloads.py` need aiohttp, an extra: they are not imported here, but where they are used.
"""

from __future__ import annotations

from strata.egress.networks import is_public
from strata.egress.rules import EgressRules
from strata.egress.web_addresses import RefusedAddress, WebAddress, host_pattern, matches_host

__all__ = ["EgressRules", "RefusedAddress", "WebAddress", "host_pattern", "is_public", "matches_host"]
