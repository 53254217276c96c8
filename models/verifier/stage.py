"""The verifier as a stage: from a record and its composed text to what is kept of each sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from models.base import Stage
from models.items import VerifyRequest
from models.verifier.entities import facts_of
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
        p = self._parameters
        return [
            Reading(facts_of(request.record, p.caption == "things"), p.strict).read(request.text) for request in batch
        ]
