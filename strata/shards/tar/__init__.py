"""Tars by webdataset's convention: `reader.py` makes rows of them, from samples that `samples.py` groups.

`headers.py` reads the headers of all members in one pass, and `members.py` those of one member.
"""

from __future__ import annotations

from strata.shards.tar.reader import TarReader

__all__ = ["TarReader"]
