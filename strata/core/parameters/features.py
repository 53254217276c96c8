"""Parameters of the back ends of the group `features`."""

from __future__ import annotations

from pydantic import Field

from strata.core.parameters.base import Parameters


class SharpnessParameters(Parameters):
    """side: pixels of the longer side to which larger images are made smaller first, so that sizes can be compared."""

    side: int = Field(default=512, ge=16, le=8192)
