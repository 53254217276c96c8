"""The binding alarm: texts that fit the layers of another image of their batch better than those of their own.

A program that ships captions with the wrong images writes rows that look well one by one. Here every text is read
against its own record and against a few others of its micro-batch. A claim that its own record supports and another
one does not speaks for the binding, and the reverse against it. Things that most pictures have in common count little
by this, and no image is needed. A batch whose texts prefer other records is refused: the stage is broken in this
process, which ends, and the next one computes the images one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from models.base import StageBroken
from models.sentences import sentences_of
from models.verifier.checks import Verdict, verdict_of
from models.verifier.claims import Statement, statements_of
from models.verifier.entities import Facts
from models.verifier.structure import structure_of

OTHERS = 4  # records of the batch that each text is compared with
LEAST_TEXTS = 2  # that must fit others better before a batch is refused
# of the texts that can be told apart. Of texts at the wrong images about four in five fit one of four others better, of
# those at the right images hardly one in a hundred.
SHARE = 0.34
MOST_SENTENCES = 8  # of a text that are read


@dataclass(frozen=True)
class Binding:
    """How a batch's texts fit. own, others: texts that fit their own record better, and those that fit another one."""

    own: int = 0
    others: int = 0

    @property
    def swapped(self) -> bool:
        """Whether the texts are those of other images."""
        return self.others >= LEAST_TEXTS and self.others > SHARE * (self.own + self.others)


def binding_of(texts: Sequence[str], facts: Sequence[Facts]) -> Binding:
    """How texts fit the records that they were assigned to, by their places in the batch."""
    known = [(i, text) for i, text in enumerate(texts) if text.strip()]
    statements = {i: claims_of(text) for i, text in known}
    own = others = 0
    for i, _ in known:
        # the neighbours, and one far away: texts that have moved by one place fit a neighbour
        near = [(i + step) % len(facts) for step in (1, -1, len(facts) // 2, 2)]
        compared = [j for j in dict.fromkeys(near) if j != i][:OTHERS]
        fits = _fit(statements[i], facts[i])
        best = max((_fit(statements[i], facts[j]) for j in compared), default=fits)
        own, others = own + (fits > best), others + (best > fits)
    return Binding(own, others)


def check_binding(texts: Sequence[str], facts: Sequence[Facts]) -> None:
    """Raise StageBroken if the texts of a batch fit other records than their own."""
    found = binding_of(texts, facts)
    if found.swapped:
        raise StageBroken(
            "composer",
            f"{found.others} of {found.own + found.others} texts of a batch fit another image of the batch better than "
            "their own; none is written",
        )


@functools.lru_cache(256)
def claims_of(text: str) -> list[Statement]:
    """The claims of a text that tell pictures apart: things, their attributes and quotations."""
    read = (structure_of(sentence[:1000]) for sentence in sentences_of(text)[:MOST_SENTENCES])
    return [one for made in read for one in statements_of(made) if one.kind in ("thing", "attribute", "quote")]


def _fit(statements: Sequence[Statement], facts: Facts) -> int:
    """The claims that a record supports, less those that it contradicts."""
    verdicts: list[Verdict] = [verdict_of(one, facts) for one in statements]
    return sum(one.supported is True for one in verdicts) - sum(one.supported is False for one in verdicts)
