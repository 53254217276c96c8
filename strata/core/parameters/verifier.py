"""Parameters of the verifier's back ends."""

from __future__ import annotations

from typing import Literal

from strata.core.parameters.base import Parameters


class VerifierParameters(Parameters):
    """strict: what no entry can judge is cut too; otherwise only what the evidence contradicts or lacks.

    caption: whether a thing that the caption alone names is supported ("things"), or only the surroundings that it
    names ("setting"): right where a detector knows all things that the captioner knows.
    """

    strict: bool = False
    caption: Literal["things", "setting"] = "things"
