"""Search over the rows of parts: an index beside the store, filters, pages and facets.

It imports `strata.core`, `strata.store` and `strata.snapshots`, and no queue. Read `index.py` first, then `pages.py`.
"""

from __future__ import annotations

from strata.search.facets import facets
from strata.search.filters import Order, Query, Scope
from strata.search.index import IndexNotReady, SearchIndex
from strata.search.pages import BadSearchCursor, Found, Search
from strata.search.snapshot_scopes import SnapshotScopes
from strata.search.words import words_of

__all__ = [
    "BadSearchCursor",
    "Found",
    "IndexNotReady",
    "Order",
    "Query",
    "Scope",
    "Search",
    "SearchIndex",
    "SnapshotScopes",
    "facets",
    "words_of",
]
