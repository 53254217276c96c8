"""Publishing: the papers of an export (card, Croissant metadata, checksums), and its way to a hub or a bucket.

It stands above `strata.data` and `strata.evaluation`, whose exports and rates it needs. Read `exporting.py` first;
`papers/facts.py` gathers what the papers say.
"""

from __future__ import annotations

from strata.publishing.checksums import CARD, SUMS, BadSums
from strata.publishing.exporting import export, write_papers
from strata.publishing.papers.about import About
from strata.publishing.papers.cards import card_of
from strata.publishing.papers.croissant import METADATA
from strata.publishing.papers.facts import Facts, facts_of

__all__ = ["CARD", "METADATA", "SUMS", "About", "BadSums", "Facts", "card_of", "export", "facts_of", "write_papers"]
