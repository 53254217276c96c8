"""The verification of a text: its sentences, their claims, and what is kept of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from models.items import CropQuestion
from models.sentences import sentences_of
from models.verifier.attributes import compared
from models.verifier.checks.kinds import strict, verdict_of
from models.verifier.checks.settings import excludes
from models.verifier.checks.verdicts import UNKNOWN, Verdict
from models.verifier.claims.reading import statements_of
from models.verifier.claims.statements import Statement
from models.verifier.cutting import cut_back
from models.verifier.entities import Facts
from models.verifier.images.opinions import LONGEST, question_of, with_opinion
from models.verifier.phrases import NounPhrase
from models.verifier.structure import Structure, structure_of
from models.verifier.words.tokens import tokens_of
from strata.core import NOTHING_FOUND, CheckedSentence, Claim, Verification

MAX_SENTENCES = 100  # of a text that are read; the guards bound its characters
MAX_WORDS = 150  # and marks of a sentence that is read; nobody could follow a longer one, and it is cut


@dataclass
class Reading:
    """The verification of one text. strictly: what nothing can judge is cut too. said: the claims of kept sentences.

    reader: for a sentence as it was written, the function that reads the claims of it and of what remains of it.
    opinions: the answers of a second opinion, of which those below `match` cut a claim. questions: what there is to
    ask it about the text, each once, in order.
    """

    facts: Facts
    strictly: bool = False
    said: list[Statement] = field(default_factory=list)
    subjects: tuple[NounPhrase, ...] = ()  # of the sentence before
    reader: Callable[[str], Callable[[Structure], list[Statement]]] = lambda _: statements_of
    opinions: Mapping[CropQuestion, float] = field(default_factory=dict)
    match: float = 0.0
    questions: dict[CropQuestion, None] = field(default_factory=dict)

    def read(self, text: str) -> Verification:
        """The verification of a text."""
        sentences = sentences_of(text)
        found = [self.sentence(one) for one in sentences[:MAX_SENTENCES]]
        # what is not read is not kept
        found += [CheckedSentence(text=one, kept=None, reason="low_match") for one in sentences[MAX_SENTENCES:]]
        return Verification(text=text, sentences=found)

    def sentence(self, text: str) -> CheckedSentence:
        """A sentence with its claims and what is kept of it."""
        if len(tokens_of(text[: MAX_WORDS * 20])) > MAX_WORDS or len(text) > MAX_WORDS * 20:
            return CheckedSentence(text=text, kept=None, reason="low_match")
        made, self._statements = self._structure(text), self.reader(text)
        judged = list(self._judged(made))
        # a sentence that the second opinion finds false as a whole; one that it confirms proves none of its claims
        whole = self._whole(text, judged)
        if whole.supported is False:
            self.subjects = made.clauses[0].subjects if made.clauses else ()
            claims = [_claim(made, statement, whole) for statement, _ in judged]
            return CheckedSentence(text=text, kept=None, reason="low_match", claims=claims)
        claims = [_claim(made, statement, verdict) for statement, verdict in judged]
        faults = [(statement.start, statement.end) for statement, verdict in judged if verdict.supported is False]
        kept: str | None = text
        if faults:
            kept = cut_back(made, faults, self._holds)
        if kept is not None:
            self.said += [one for one, _ in judged] if kept == text else self._statements(self._structure(kept))
        self.subjects = made.clauses[0].subjects if made.clauses else ()
        reason = next((claim.reason for claim in claims if claim.supported is False), None)
        return CheckedSentence(text=text, kept=kept, reason=reason, claims=claims)

    def _structure(self, text: str) -> Structure:
        return structure_of(text, self.subjects, self.facts.compounds, self.facts.read)

    def _judged(self, made: Structure) -> Iterator[tuple[Statement, Verdict]]:
        for statement in self._statements(made):
            verdict = verdict_of(statement, self.facts)
            if verdict.supported is None and self._contradicts(statement):
                verdict = Verdict(False, "contradicts")
            verdict = self._second(question_of(statement, verdict), verdict)
            yield statement, strict(verdict, statement) if self.strictly else verdict

    def _second(self, question: CropQuestion | None, verdict: Verdict) -> Verdict:
        """The verdict after the second opinion, if there is one of this question."""
        if question is None:
            return verdict
        self.questions[question] = None
        return with_opinion(verdict, self.opinions.get(question), self.match)

    def _whole(self, text: str, judged: Sequence[tuple[Statement, Verdict]]) -> Verdict:
        """The second opinion on a sentence none of whose claims has an entry; on others UNKNOWN."""
        if text == NOTHING_FOUND or any(verdict.evidence or verdict.supported is False for _, verdict in judged):
            return UNKNOWN
        return self._second(CropQuestion((), text[:LONGEST]), UNKNOWN)

    def _holds(self, rest: str) -> bool:
        """Whether no claim of a rest is contradicted, and one at least remains."""
        verdicts = [verdict for _, verdict in self._judged(self._structure(rest))]
        return bool(verdicts) and all(verdict.supported is not False for verdict in verdicts)

    def _contradicts(self, statement: Statement) -> bool:
        """Whether a claim that no entry judges excludes one that an earlier sentence has made."""
        return any(_exclude(earlier, statement) for earlier in self.said)


def _exclude(earlier: Statement, later: Statement) -> bool:
    """Whether two claims of one text exclude each other: a kitchen and a beach; "two dogs", then "three dogs"."""
    a, b = earlier.phrase, later.phrase
    if earlier.kind != later.kind or a is None or b is None or a.negated or b.negated:
        return False
    if later.kind == "setting":
        return excludes(a.noun, b.noun)
    if a.noun != b.noun:
        return False
    if later.kind == "attribute" and b.definite:
        return compared(later.value, frozenset({earlier.value})) is False
    return (
        later.kind == "count"
        and b.definite
        and "0" not in (earlier.value, later.value)
        and earlier.value != later.value
    )


def _claim(made: Structure, statement: Statement, verdict: Verdict) -> Claim:
    start = statement.start
    # a relation is told with what it is told of
    if statement.kind == "relation" and statement.subjects:
        words = f"{statement.subjects[0].text(made.tokens, made.text)} {made.words(start, statement.end)}"
    else:
        words = made.words(start, statement.end)
    return Claim(
        kind=statement.kind,
        text=words,
        supported=verdict.supported,
        reason=verdict.reason if verdict.supported is False else None,
        evidence=list(verdict.evidence),
        score=verdict.score,
    )


def remaining(verification: Verification) -> str:
    """The text that remains: as it was if nothing was cut, else the kept sentences in a row; "" if none is."""
    if all(sentence.kept == sentence.text for sentence in verification.sentences):
        return verification.text
    return " ".join(sentence.kept for sentence in verification.sentences if sentence.kept)


def faults_of(verification: Verification) -> Sequence[str]:
    """What was wrong, in words for a composer: each false claim once."""
    false = (claim for sentence in verification.sentences for claim in sentence.claims if claim.supported is False)
    return list(dict.fromkeys(claim.text for claim in false))
