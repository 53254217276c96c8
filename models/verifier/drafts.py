"""Drafts: composed texts on their way to a record, through the verifier; composed again if nothing is left."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from models.base import Stage
from models.evidence.support import describe
from models.items import PLACEHOLDER_IMAGE, ComposeRequest, Failure, Pair, VerifyRequest
from models.sentences import sentences_of
from models.verifier.binding import check_binding
from models.verifier.entities import facts_of
from models.verifier.images.opinions import LONGEST, MOST_PAIRS, best_scores, pairs_of
from models.verifier.plain import plain_text
from models.verifier.verifying import faults_of, remaining
from models.writers import ComposerStage, write
from strata.core import Description, Origin, Record, Sentence, Usage, Verification

BY_RULES = "claims_by_rules"  # the type of a warning
MOST_ERRORS, LONGEST_ERROR = 10, 100  # that a composer is told; their number, and characters of each


@dataclass
class Draft:
    """One record's text. verification: null until the verifier has run; seconds and usage: by stage.

    translated: what remains of the text, in another language; null if it was not asked for. note: why the rules, and
    not the profile's model, have read its claims.
    """

    request: ComposeRequest
    text: str | Failure = ""
    verification: Verification | None = None
    translated: str | None = None
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)

    @property
    def nothing_left(self) -> bool:
        """Whether the verifier has cut every sentence."""
        return self.verification is not None and not remaining(self.verification)

    def add_costs(self, stage: str, seconds: float, usage: Usage | None) -> None:
        """Add what a stage has taken; a stage may run twice."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if usage is not None:
            self.usage[stage] = self.usage.get(stage, Usage()) + usage

    def add_costs_of(self, other: Draft) -> None:
        """Add what another draft of the same record has taken."""
        for stage, seconds in other.seconds.items():
            self.add_costs(stage, seconds, other.usage.get(stage))

    def finished(self) -> Record:
        """The record with its description and verification, or the row of its failure."""
        record = self.request.record
        record = record.model_copy(
            update={"seconds": record.seconds | self.seconds, "usage": record.usage | self.usage}
        )
        if isinstance(self.text, Failure):
            return self.text.row_of(record)
        if self.note:
            record = record.warned(BY_RULES, self.note)
        return record.model_copy(update={"description": self.described(), "verification": self.verification})

    @property
    def left(self) -> str:
        """What remains of the text after the verifier; a plain composition of the layers if nothing did."""
        if self.verification is None:
            return str(self.text)
        if self.verification.origin != "layers":
            return remaining(self.verification)
        text = plain_text(self.request.record)
        return sentences_of(text)[0] if self.request.length == "short" else text

    def described(self) -> Description:
        """What remains, sentence by sentence; a translation's sentences have the evidence of those that they follow."""
        told = describe(self.left, self.request.record)
        if self.translated is None:
            return told
        sentences = sentences_of(self.translated)
        if len(sentences) != len(told.sentences):
            return describe(self.translated, self.request.record)
        pairs = zip(sentences, told.sentences, strict=True)
        own = [Sentence(text=text, evidence=before.evidence) for text, before in pairs]
        return Description(text=self.translated, sentences=own)


def compose(composer: ComposerStage, drafts: Sequence[Draft]) -> None:
    """Write the texts of drafts, in one call; each is charged the same share of the time."""
    started = time.perf_counter()
    texts = write(composer, [draft.request for draft in drafts])
    share = (time.perf_counter() - started) / max(1, len(drafts))
    # a composer without a server reports no usage
    usage = iter(composer.usage)
    for draft, text in zip(drafts, texts, strict=True):
        draft.text = text
        draft.add_costs(composer.name, share, next(usage, None))


def check_bound(drafts: Sequence[Draft]) -> None:
    """Raise StageBroken if the texts of a micro-batch fit other images of it better than their own."""
    # a record may have several texts: one of each speaks for them
    written = {id(draft.request.record): draft for draft in drafts if isinstance(draft.text, str) and draft.text}
    one_each = list(written.values())
    check_binding([str(draft.text) for draft in one_each], [facts_of(draft.request.record) for draft in one_each])


def verify(
    verifier: Stage[Any, Any],
    drafts: Sequence[Draft],
    origin: Origin = "composed",
    matcher: Stage[Pair, Any] | None = None,
) -> None:
    """Verify the texts of drafts. A record without notes has no text, and nothing to verify.

    matcher: gives the second opinion on their claims, if the verifier asks for one.
    """
    asked = [draft for draft in drafts if isinstance(draft.text, str) and draft.text.strip()]
    started = time.perf_counter()
    requests = [VerifyRequest(draft.request.record, str(draft.text), draft.request.image) for draft in asked]
    if matcher is not None:
        requests = _with_opinions(verifier, matcher, requests, asked)
    results = verifier.run(requests) if requests else []
    share = (time.perf_counter() - started) / max(1, len(asked))
    usage, notes = iter(verifier.usage), iter(verifier.notes)
    for draft, result in zip(asked, results, strict=True):
        draft.add_costs(verifier.name, share, next(usage, None))
        draft.note = next(notes, "")
        if isinstance(result, Failure):
            draft.text = result
        else:
            draft.verification = result.model_copy(update={"origin": origin})


def _with_opinions(
    verifier: Stage[Any, Any], matcher: Stage[Pair, Any], requests: Sequence[VerifyRequest], drafts: Sequence[Draft]
) -> list[VerifyRequest]:
    """The requests with the matcher's opinions, in one call for all texts. A Failure leaves what the rules say."""
    seen = [
        pairs_of(verifier.questions(one), one.record, one.image)  # type: ignore[attr-defined]  # a verifier with the parameter has it
        if one.image is not None
        else []
        for one in requests
    ]
    pairs = [pair for of_text in seen for _, pair in of_text]
    scores = iter(matcher.run(pairs) if pairs else [])
    usage = iter(matcher.usage if pairs else [])
    answered: list[VerifyRequest] = []
    for one, draft, of_text in zip(requests, drafts, seen, strict=True):
        opinions = best_scores([(question, next(scores)) for question, _ in of_text])
        used = sum(itertools.islice(usage, len(of_text)), Usage())
        # its costs are the verifier's
        draft.add_costs(verifier.name, 0.0, used if used != Usage() else None)
        answered.append(replace(one, opinions=opinions))
    return answered


def most_asked(matcher: Stage[Pair, Any]) -> tuple[Usage, Usage]:
    """Upper bounds on the usage of a text's second opinion: with one try, and with all retries."""
    once, most = matcher.bound(Pair(PLACEHOLDER_IMAGE, "é" * 2 * LONGEST))
    return once * MOST_PAIRS, most * MOST_PAIRS


def compose_again(
    composer: ComposerStage,
    verifier: Stage[Any, Any],
    drafts: Sequence[Draft],
    matcher: Stage[Pair, Any] | None = None,
) -> None:
    """Drafts of which nothing is left: composed once more with what was wrong said, then plainly from the layers."""
    if drafts and composer.heeds_errors:
        second = [Draft(told_of_errors(draft)) for draft in drafts]
        compose(composer, second)
        verify(verifier, second, "composed_again", matcher)
        for draft, again in zip(drafts, second, strict=True):
            draft.add_costs_of(again)
            # a second text that is rejected, or of which nothing is left, changes nothing
            if again.verification is not None and not again.nothing_left:
                draft.text, draft.verification, draft.note = again.text, again.verification, again.note
    for draft in drafts:
        if draft.nothing_left and draft.verification is not None:
            draft.verification = draft.verification.model_copy(update={"origin": "layers"})


def told_of_errors(draft: Draft) -> ComposeRequest:
    """The request for a second text, with what the first one said wrongly."""
    assert draft.verification is not None
    errors = tuple(error[:LONGEST_ERROR] for error in faults_of(draft.verification)[:MOST_ERRORS])
    return replace(draft.request, errors=errors)


def longest_request(request: ComposeRequest) -> ComposeRequest:
    """The request with the longest errors, for the upper bound of its usage."""
    return replace(request, errors=("é" * LONGEST_ERROR * 2,) * MOST_ERRORS)
