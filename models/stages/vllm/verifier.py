"""The verifier on vLLM's engine: a model finds the claims of a text as JSON, the rules' checks judge them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from models.chat.claims import SYSTEM, response_format
from models.chat.questions import ChatAnswer
from models.chat.verifier import ClaimsVerifier, told_by
from models.items import Failure, VerifyRequest
from models.sentences import sentences_of
from models.stages.vllm.engine import Answer, Question
from models.stages.vllm.stage import VllmStage
from models.verifier.lexicon import lexicon
from strata.core import StageSettings, Usage, Verification, VllmVerifierParameters

SCHEMA = response_format()["json_schema"]["schema"]


class VllmVerifier(ClaimsVerifier, VllmStage[VerifyRequest, Verification]):
    """One question for each text. A text whose answer cannot be used is read by the rules alone, with a note."""

    name: ClassVar[str] = "verifier"

    def __init__(self, settings: StageSettings) -> None:
        own = VllmVerifierParameters.model_validate(settings.parameters)
        self.judging = own
        self._limit = own.max_new_tokens
        self._notes: dict[int, str] = {}  # by the request's id, in the current `run`
        VllmStage.__init__(self, settings, own)

    def load(self) -> None:
        """Also read the dictionary."""
        lexicon()
        VllmStage.load(self)

    def run(self, batch: Sequence[VerifyRequest]) -> list[Verification | Failure]:
        """As `Stage.run`; no text fails."""
        self._notes = {}
        results = VllmStage.run(self, batch)
        for i, result in enumerate(results):
            if isinstance(result, Failure):
                self._notes[id(batch[i])] = f"no answer: {result.detail}"
                results[i] = self.reading(batch[i], {}).read(batch[i].text)
        self.notes = [self._notes.get(id(request), "") for request in batch]
        return results

    def _question(self, item: VerifyRequest) -> Question | None:
        content = self.content(sentences_of(item.text))
        if content is None:
            return None
        return self._chat([{"role": "system", "content": SYSTEM}], [], content, self._limit, schema=SCHEMA)

    def _result(self, item: VerifyRequest, answer: Answer | None) -> Verification:
        sentences = sentences_of(item.text)
        if answer is None:
            self._notes[id(item)] = "the text is too long" if sentences else ""
            return self.reading(item, {}).read(item.text)
        answered = told_by(ChatAnswer(answer.text, None, answer.cut, Usage()), sentences)
        self._notes[id(item)] = answered.note
        return self.reading(item, answered.told or {}).read(item.text)
