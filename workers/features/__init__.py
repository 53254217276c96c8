"""Computing the stages of the group `features` for rows that are described already, without a queue.

Each stage has parts of its own beside the `llm` parts: what is there is not computed again, so several processes, also
on several machines, may run over the same store, and one that was killed is started again.
"""

from __future__ import annotations

from workers.features.computing import FeatureRun, Totals
from workers.features.pictures import embed_pictures

__all__ = ["FeatureRun", "Totals", "embed_pictures"]
