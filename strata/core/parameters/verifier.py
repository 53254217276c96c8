"""Parameters of the verifier's back ends."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from strata.core.parameters.base import Parameters


class VerifierParameters(Parameters):
    """strict: what no entry can judge is cut too; otherwise only what the evidence contradicts or lacks.

    caption: whether a thing that the caption alone names is supported ("things"), or only the surroundings that it
    names ("setting"): right where a detector knows all things that the captioner knows.

    second_opinion: the stage of the same profile that is asked about things and attributes which the rules have not
    found false, on the crops of their entries; match: the least probability that it must give (both or neither).
    colours: whether a colour is checked against the pixels of a thing of which no entry names the colour. With either,
    the group `llm` gets the images.
    """

    strict: bool = False
    caption: Literal["things", "setting"] = "things"
    second_opinion: Literal["matcher", "second_matcher"] | None = None
    match: float | None = Field(default=None, ge=0, le=1)
    colours: bool = False

    @model_validator(mode="after")
    def _asked_and_judged(self) -> Self:
        if (self.second_opinion is None) != (self.match is None):
            raise ValueError("second_opinion and match have no effect without each other")
        return self


class AskedVerifierParameters(VerifierParameters):
    """What is asked of a chat model, on a server or in vLLM's engine.

    max_new_tokens: maximum length of the list of a text's claims. longest_text: longer ones, in bytes, are read by the
    rules, without a question. Both bound the cost of a text.
    """

    max_new_tokens: int = Field(default=2000, ge=1)
    longest_text: int = Field(default=4000, ge=100)
