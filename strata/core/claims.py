"""Claims: what each sentence of a description says, and what the verifier found of it.

A claim is one thing that a sentence says: that a thing is there, its colour, a count, a relation, quoted text, or the
setting. The verifier (`models/verifier`) checks each one against the layers and the image, and records its findings
with these models. A record keeps the text as the composer wrote it, beside the description that remains.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strata.core.layers import Frozen, Probability, Sentence

ClaimKind = Literal["thing", "attribute", "count", "relation", "quote", "setting"]
CutReason = Literal[
    "unsupported_object",
    "wrong_attribute",
    "wrong_count",
    "wrong_relation",
    "unread_text",
    "low_match",
    "contradicts",
]
Origin = Literal["composed", "composed_again", "layers"]


class Claim(Frozen):
    """One claim of a sentence.

    text: its words in the sentence. supported: null if nothing could judge it. reason: why it is not supported, else
    null. evidence: the entries that support or contradict it, as in `Sentence`. score: the probability that a model
    gave it, if one was asked (the matcher on the crops, or a vision-language model's "Yes").
    """

    kind: ClaimKind
    text: str
    supported: bool | None = None
    reason: CutReason | None = None
    evidence: list[str] = Field(default_factory=list)
    score: Probability | None = None


class CheckedSentence(Frozen):
    """A sentence as it was composed. kept: what remains of it: all, its supported clauses, or null if it was cut.

    reason: why something was cut: the reason of its first claim that is not supported; null if nothing was.
    """

    text: str
    kept: str | None
    reason: CutReason | None = None
    claims: list[Claim] = Field(default_factory=list)


class Verification(Frozen):
    """What the verifier found of a text. text: as it was composed; sentences: each sentence of it.

    origin: which text remained: the composer's first one ("composed"), its second one after nothing was left of the
    first ("composed_again"), or a plain composition from the layers ("layers").
    """

    text: str
    sentences: list[CheckedSentence]
    origin: Origin = "composed"


class Turn(Frozen):
    """A question about the image with its answer; evidence: the entries that the answer rests on."""

    question: str
    answer: str
    evidence: list[str] = Field(default_factory=list)


class Variant(Frozen):
    """Another text of the same evidence: "short", "medium", "long", "tags", "json", "questions".

    language: a BCP 47 code. text: the variant as one text; for "questions" the turns joined by line ends. sentences:
    as in `Description`. turns: of "questions" only. verification: null if the profile has no verifier.
    """

    name: str
    language: str = "en"
    text: str
    sentences: list[Sentence] = Field(default_factory=list)
    turns: list[Turn] = Field(default_factory=list)
    verification: Verification | None = None
