"""Parameters of the back ends of the group `features`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strata.core.parameters.base import Parameters


class AestheticParameters(Parameters):
    """head: of LAION's aesthetic predictors, see `models.stages.features.aesthetic`."""

    head: Literal["v1", "v2"] = "v2"


class FacesParameters(Parameters):
    """side: pixels of the longer side at which faces are looked for; those of less than ten pixels are not found.

    threshold: the least confidence.
    """

    side: int = Field(default=960, ge=64, le=4096)
    threshold: float = Field(default=0.8, ge=0, le=1)


class SharpnessParameters(Parameters):
    """side: pixels of the longer side to which larger images are made smaller first, so that sizes can be compared."""

    side: int = Field(default=512, ge=16, le=8192)
