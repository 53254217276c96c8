"""The verifier as a stage: from a record and its composed text to what is kept of each sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from models.base import Stage
from models.items import CropQuestion, VerifyRequest
from models.verifier.entities import Facts, facts_of
from models.verifier.images.colours import see_colours
from models.verifier.lexicon import lexicon
from models.verifier.verifying import Reading
from strata.core import StageSettings, Verification, VerifierParameters


class RulesVerifier(Stage[VerifyRequest, Verification]):
    """Claims and checks by rules, see `models.verifier`. It has no weights; 1 ms a sentence."""

    name: ClassVar[str] = "verifier"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self._parameters = VerifierParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Read the dictionary."""
        lexicon()

    def compute(self, batch: Sequence[VerifyRequest]) -> list[Verification]:
        """The verification of each text."""
        return [self._reading(request).read(request.text) for request in batch]

    def questions(self, request: VerifyRequest) -> list[CropQuestion]:
        """What there is to ask a second opinion about a text: of the claims that the rules have not found false."""
        reading = self._reading(request)
        reading.read(request.text)
        return list(reading.questions)

    def _reading(self, request: VerifyRequest) -> Reading:
        p = self._parameters
        return Reading(known_facts(request, p), p.strict, opinions=request.opinions, match=p.match or 0.0)


def known_facts(request: VerifyRequest, parameters: VerifierParameters) -> Facts:
    """The evidence of a request's record, with the colours of pixels if the profile wants them."""
    facts = facts_of(request.record, parameters.caption == "things")
    if parameters.colours and request.image is not None:
        see_colours(facts, request.record, request.image)
    return facts
