"""Records and judgments in the files of other programs: Label Studio and FiftyOne.

Both are plain JSON; neither program is needed to write or to read it.
"""

from __future__ import annotations

from strata.judgments.exchange import fiftyone, label_studio
from strata.judgments.exchange.described import Described, ForeignFile, Imported, opinion_of

__all__ = ["Described", "ForeignFile", "Imported", "fiftyone", "label_studio", "opinion_of"]
