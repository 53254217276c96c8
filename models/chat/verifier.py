"""The verifier's back end for chat servers: a model finds the claims of a text, the rules' checks judge them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from models.base import GROUP_OF, Stage
from models.chat.backends import PROBE, chat_client
from models.chat.claims import (
    MOST_SENTENCES,
    SYSTEM,
    BadAnswer,
    ToldClaim,
    claims_in,
    numbered,
    response_format,
)
from models.chat.questions import ChatAnswer, Question, prompt_bound
from models.chat.statements import ToldStatements
from models.deadlines import DEADLINES, Activity
from models.items import CropQuestion, Failure, VerifyRequest
from models.sentences import sentences_of
from models.verifier.claims.reading import statements_of
from models.verifier.claims.statements import Statement
from models.verifier.entities import Facts
from models.verifier.lexicon import lexicon
from models.verifier.stage import known_facts
from models.verifier.structure import Structure
from models.verifier.verifying import Reading
from strata.core import ChatVerifierParameters, StageSettings, Usage, Verification, VllmVerifierParameters

log = logging.getLogger(__name__)

Told = Mapping[str, Sequence[ToldClaim]]  # claims by their sentence


@dataclass(frozen=True)
class Answered:
    """What became of a text's question. told: null if the rules read the text; note: why, "" if nothing was asked."""

    told: Told | None = None
    note: str = ""
    usage: Usage = field(default_factory=Usage)


class ClaimsVerifier(Stage[VerifyRequest, Verification]):
    """What the back ends share whose model finds the claims. judging: the parameters of the checks."""

    judging: ChatVerifierParameters | VllmVerifierParameters

    def questions(self, request: VerifyRequest) -> list[CropQuestion]:
        """What there is to ask a second opinion about a text: of the claims that the rules find in it."""
        reading = self.reading(request, {})
        reading.read(request.text)
        return list(reading.questions)

    def reading(self, request: VerifyRequest, told: Told) -> Reading:
        """The checks of a text with the claims that a model has told of its sentences."""
        facts, p = known_facts(request, self.judging), self.judging
        return Reading(facts, p.strict, reader=_reader(told, facts), opinions=request.opinions, match=p.match or 0.0)

    def content(self, sentences: Sequence[str]) -> str | None:
        """The sentences for the model; None if there are none, or too many or too long ones."""
        text = numbered(sentences)
        long = len(sentences) > MOST_SENTENCES or len(text.encode()) > self.judging.longest_text
        return None if long or not sentences else text


class OpenAIVerifier(ClaimsVerifier):
    """Claims by a chat model, as JSON, with one question for each text; checks and cuts as of the rules.

    A text whose answer cannot be used is read by the rules alone, and its record gets a warning (`notes`).
    """

    name: ClassVar[str] = "verifier"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.judging = self._own = ChatVerifierParameters.model_validate(settings.parameters)
        # as an answer of the probe any word will do: it has no schema, which a server may refuse
        probe = [{"role": "user", "content": PROBE}]
        bound = prompt_bound([PROBE], 0, self._own)
        self._client = chat_client(settings, self._own, Question(probe, 1, bound), self.name)
        self._structured = True  # until the server has refused a question with a schema and answered it without

    def load(self) -> None:
        """Read the dictionary and open the connection pool. It sends no request yet."""
        lexicon()
        self._client.open()

    def compute(self, batch: Sequence[VerifyRequest]) -> list[Verification]:
        """The verification of each text."""
        return [result for result in self.run(batch) if isinstance(result, Verification)]

    def run(self, batch: Sequence[VerifyRequest]) -> list[Verification | Failure]:
        """As `Stage.run`; no text fails. All questions are sent in parallel."""
        texts = [sentences_of(request.text) for request in batch]
        answered = self._answered(texts)
        self.usage = [one.usage for one in answered]
        self.notes = [one.note for one in answered]
        if noted := Counter(note.partition(":")[0] for note in self.notes if note):
            reasons = ", ".join(f"{reason} ({count})" for reason, count in noted.most_common())
            log.info("verifier: %d of %d texts were read by the rules: %s", noted.total(), len(batch), reasons)
        return [
            self.reading(request, one.told or {}).read(request.text)
            for request, one in zip(batch, answered, strict=True)
        ]

    def probe_item(self) -> None:
        """None: the client asks the server a test question after an error, and a probe at the start would be paid."""

    def bound(self, item: VerifyRequest) -> tuple[Usage, Usage]:
        """As `Stage.bound`, of the longest text that is asked about: its own is not written yet."""
        question = self._question("x" * self.judging.longest_text)
        # with a schema, and once more without
        return question.bound, self._client.upper_bound(question) * 2

    def release(self) -> None:
        """Drop the kept answers."""
        self._client.clear()

    def keep(self) -> Usage:
        """As `Stage.keep`."""
        return self._client.keep()

    def _answered(self, texts: Sequence[Sequence[str]]) -> list[Answered]:
        """The claims of texts, given as sentences; and the usage."""
        contents = [self.content(sentences) for sentences in texts]
        questions = [self._question(content) for content in contents if content is not None]
        seconds = 2 * self._client.seconds_at_most(len(questions))
        with DEADLINES.watch(Activity(GROUP_OF[self.name], self.name, seconds)):
            answers = iter(self._asked(questions))
        found = []
        for sentences, content in zip(texts, contents, strict=True):
            if content is None:
                found.append(Answered(note="the text is too long" if sentences else ""))
            else:
                found.append(told_by(next(answers), sentences))
        return found

    def _asked(self, questions: Sequence[Question]) -> list[ChatAnswer]:
        """The answers, in order. What a server refuses with a schema is asked without."""
        answers = self._client.ask(questions)
        if not self._structured:
            return answers
        again = [i for i, answer in enumerate(answers) if answer.refused]
        if again:
            plain = [replace(questions[i], fields={}) for i in again]
            for i, answer in zip(again, self._client.ask(plain), strict=True):
                # an answer at once shows that the schema was refused, and not the question
                self._structured = self._structured and answer.fault is not None
                answers[i] = replace(answer, usage=answers[i].usage + answer.usage)
            if not self._structured:
                log.info("verifier: the server takes no JSON schema; it is asked without from now on")
        return answers

    def _question(self, content: str) -> Question:
        fields = {"response_format": response_format()} if self._structured else {}
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
        # servers count a schema as part of the prompt
        bound = prompt_bound([SYSTEM, content, json.dumps(response_format())], 0, self._own)
        return Question(messages, self.judging.max_new_tokens, bound, fields=fields)


def told_by(answer: ChatAnswer, sentences: Sequence[str]) -> Answered:
    """What an answer says of a text's sentences."""
    if answer.fault is not None:
        return Answered(note=f"no answer: {answer.fault}", usage=answer.usage)
    try:
        claims = claims_in(answer.text, sentences)
    except BadAnswer as bad:
        reason = "the answer was cut at its token limit" if answer.cut else f"the answer cannot be used, {bad}"
        return Answered(note=reason, usage=answer.usage)
    # a sentence that stands there twice has the claims of both
    told: dict[str, list[ToldClaim]] = {}
    for sentence, own in zip(sentences, claims, strict=True):
        told.setdefault(sentence, []).extend(own)
    return Answered(told, usage=answer.usage)


def _reader(told: Told, facts: Facts) -> Callable[[str], Callable[[Structure], list[Statement]]]:
    """For a sentence, the function that reads its claims."""

    def reader(sentence: str) -> Callable[[Structure], list[Statement]]:
        own = told.get(sentence)
        return ToldStatements(own, facts) if own else statements_of

    return reader
