"""A judgment: what one person said of one record, and when. It is never changed: a later one supersedes it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from strata.core import Description
from strata.core.layers import Frozen
from strata.core.schemas import Text
from strata.errors import InvalidInput

Verdict = Literal["accepted", "rejected", "edited", "undone"]
SentenceVerdict = Literal["accepted", "rejected", "edited"]
# the reasons of the verifier that a person can see, and those that only a person can give
Reason = Literal[
    "unsupported_object",
    "wrong_attribute",
    "wrong_count",
    "wrong_relation",
    "unread_text",
    "contradicts",
    "incomplete",
    "language",
    "harmful",
    "other",
]
MAX_SENTENCES = 200  # of one record that have a verdict of their own
MAX_TEXT = 10_000  # characters of a sentence or a comment


def _one_line(name: str) -> str:
    """A name in its composed form (NFC), without white space around it."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name or any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise ValueError("is empty, or has control characters")
    return name


Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$")]
Reviewer = Annotated[Text, Field(min_length=1, max_length=100), AfterValidator(_one_line)]
LongText = Annotated[Text, Field(max_length=MAX_TEXT)]


class Subject(NamedTuple):
    """What is judged: one record. fingerprint: of its `llm` part; identity: of its shard; key: of its image."""

    fingerprint: str
    identity: str
    key: str


class JudgedSentence(Frozen):
    """A verdict on one sentence of a description. index: its number, from 0.

    reason: why it was rejected or edited; null if that was not said. edited: the sentence as the reviewer wrote it.
    text: the sentence that was judged; the service fills it in.
    """

    index: int = Field(ge=0, lt=MAX_SENTENCES)
    verdict: SentenceVerdict
    reason: Reason | None = None
    edited: LongText | None = None
    text: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.verdict == "edited") != (self.edited is not None):
            raise ValueError("a sentence has an edited text if, and only if, its verdict is edited")
        if self.edited is not None and not self.edited.strip():
            raise ValueError("an edited sentence is empty; reject it instead")
        if self.verdict == "accepted" and self.reason is not None:
            raise ValueError("an accepted sentence has no reason")
        return self


class Opinion(Frozen):
    """What a reviewer says: the verdict on the whole description, and verdicts on its sentences.

    id: made by the client, so that a judgment that is sent twice is kept once. supersedes: the id of the same
    reviewer's earlier judgment of the record that does not count any more. An "undone" judgment takes the one that it
    supersedes back, so that what that one had superseded counts again.
    """

    id: Id
    reviewer: Reviewer
    verdict: Verdict
    reason: Reason | None = None
    comment: LongText | None = None
    sentences: tuple[JudgedSentence, ...] = Field(default=(), max_length=MAX_SENTENCES)
    supersedes: Id | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.verdict == "undone" and (self.supersedes is None or self.sentences or self.reason):
            raise ValueError("an undone judgment names the one that it supersedes, and says nothing else")
        if self.supersedes == self.id:
            raise ValueError("a judgment cannot supersede itself")
        if self.reason is not None and self.verdict != "rejected":
            raise ValueError("only a rejected description has a reason")
        changed = any(sentence.verdict != "accepted" for sentence in self.sentences)
        if self.verdict == "edited" and not changed:
            raise ValueError("an edited description has a sentence that is edited or rejected")
        if self.verdict == "accepted" and changed:
            raise ValueError("an accepted description has no sentence that is edited or rejected")
        if len({sentence.index for sentence in self.sentences}) < len(self.sentences):
            raise ValueError("a sentence has more than one verdict")
        return self


class Judgment(Opinion):
    """An opinion as it is stored. at: when; job: the job whose record was judged, with which the judgment is deleted.

    text: the whole description as the reviewer left it, of an edited one; null of any other.
    """

    at: datetime
    job: str
    fingerprint: str
    identity: str
    key: str
    text: str | None = None

    @property
    def subject(self) -> Subject:
        """The record that is judged."""
        return Subject(self.fingerprint, self.identity, self.key)

    @property
    def opinion(self) -> dict[str, object]:
        """What the reviewer has said of which record: equal for a judgment that was sent twice."""
        return self.model_dump(exclude={"at", "text"})


class NoSuchSentence(InvalidInput):
    """A verdict is on a sentence that the description does not have, or nothing is left of the description."""


def sentences_of(description: Description | None) -> list[str]:
    """The sentences of a description that can be judged; one that was not divided is one sentence."""
    if description is None:
        return []
    return [sentence.text for sentence in description.sentences] or [description.text]


def stored(opinion: Opinion, subject: Subject, job: str, at: datetime, description: Description | None) -> Judgment:
    """The judgment of an opinion on a record with this description. Raises NoSuchSentence."""
    texts = sentences_of(description)
    judged = {sentence.index: sentence for sentence in opinion.sentences}
    if judged and max(judged) >= len(texts):
        raise NoSuchSentence(f"the description has {len(texts)} sentences, and none with the index {max(judged)}")
    text = _edited(texts, judged) if opinion.verdict == "edited" else None
    if text == "":
        raise NoSuchSentence("every sentence is rejected: reject the description")
    sentences = [sentence.model_copy(update={"text": texts[sentence.index]}) for sentence in opinion.sentences]
    given = {name: value for name, value in opinion if name != "sentences"}
    return Judgment(**given, sentences=tuple(sentences), **subject._asdict(), job=job, at=at, text=text)


def _edited(texts: Sequence[str], judged: dict[int, JudgedSentence]) -> str:
    """The description with edited sentences in their new form, and without the rejected ones."""
    left = []
    for index, text in enumerate(texts):
        sentence = judged.get(index)
        if sentence is None or sentence.verdict == "accepted":
            left.append(text)
        elif sentence.edited is not None:
            left.append(" ".join(sentence.edited.split()))
    return " ".join(left)
