"""The binding alarm: texts that fit the layers of other images of their batch better than those of their own.

A program that ships captions with the wrong images writes rows that look well one by one. Here every text is read
against every record of its micro-batch: its fit is the number of its claims that the record supports, less those that
it contradicts. The best assignment of the texts to the records (Kuhn 1955, "The Hungarian method for the assignment
problem") is compared with the one that is to be written. Things that most pictures have in common count little by this,
no image is needed, and two texts are enough. A batch of which another assignment is clearly better is refused: the
stage is broken in this process, which ends, and the next one computes the images one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.base import StageBroken
from models.sentences import sentences_of
from models.verifier.checks.kinds import verdict_of
from models.verifier.checks.verdicts import Verdict
from models.verifier.claims.reading import statements_of
from models.verifier.claims.statements import Statement
from models.verifier.entities import Facts
from models.verifier.structure import structure_of

# Of 1,000 right batches of 2 to 16 texts, also with a falsehood in each text, none gained anything; of 1,000 swapped
# ones the least gain was 2 claims and a quarter of all, and of those of which half were swapped, at 8 and more, 0.29.
LEAST_GAIN = 2  # claims by which the best assignment must be better
SHARE = 0.25  # of all claims, the same; half of the claims of texts may be inventions before chance reaches it
MOST_TEXTS = 64  # that are compared with one another; larger batches are compared in parts
MOST_SENTENCES = 8  # of a text that are read


@dataclass(frozen=True)
class Binding:
    """How a batch's texts fit. claims: of all texts; gain: by how much the best assignment fits better.

    moved: the texts that have another record there.
    """

    claims: int = 0
    gain: int = 0
    moved: int = 0

    @property
    def swapped(self) -> bool:
        """Whether texts are those of other images."""
        return self.gain >= max(LEAST_GAIN, SHARE * self.claims)


def binding_of(texts: Sequence[str], facts: Sequence[Facts]) -> Binding:
    """How texts fit the records that they were assigned to, by their places in the batch; of its parts the worst."""
    ends = range(0, max(1, len(texts)), MOST_TEXTS)
    parts = [_binding_of(texts[at : at + MOST_TEXTS], facts[at : at + MOST_TEXTS]) for at in ends]
    return max(parts, key=lambda part: (part.swapped, part.gain))


def _binding_of(texts: Sequence[str], facts: Sequence[Facts]) -> Binding:
    statements = [claims_of(text) for text in texts]
    fits = np.array([[_fit(own, one) for one in facts] for own in statements]).reshape(len(texts), len(facts))
    if len(texts) < 2:
        return Binding(sum(map(len, statements)))
    # imported here, because it is slow and a worker that verifies single images does without
    from scipy.optimize import linear_sum_assignment

    rows, best = linear_sum_assignment(fits, maximize=True)
    moved = int((fits[rows, best] > fits[rows, rows]).sum())
    return Binding(sum(map(len, statements)), int(fits[rows, best].sum() - np.trace(fits)), moved)


def check_binding(texts: Sequence[str], facts: Sequence[Facts]) -> None:
    """Raise StageBroken if the texts of a batch fit other records than their own."""
    found = binding_of(texts, facts)
    if found.swapped:
        raise StageBroken(
            "composer",
            f"{found.moved} of {len(texts)} texts of a batch fit another image of the batch better than their own; "
            "none is written",
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
