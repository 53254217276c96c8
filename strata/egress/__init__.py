"""Egress: which addresses the service may connect to for a caller, and how it connects to them and to no other.

Read `rules.py` first; `networks.py` has the table of networks that are not public. It imports nothing but
`strata.errors`; only `sessions.py` and `downloads.py` need aiohttp, so that they are imported where they are used.
"""

from __future__ import annotations

from strata.egress.networks import is_public
from strata.egress.rules import EgressRules
from strata.egress.web_addresses import RefusedAddress, WebAddress, host_pattern

__all__ = ["EgressRules", "RefusedAddress", "WebAddress", "host_pattern", "is_public"]
