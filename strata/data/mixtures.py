"""Mixtures: samples of several sources as one sequence, some of each, shuffled by a seed without an index in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strata.core.errors import IncompleteData, InvalidInput
from strata.data.permutations import Numbers, Permutation
from strata.data.sample_sources import SampleSource

QUESTION = "{question}"  # stands in an instruction for the question that a sample brings along


class MixtureError(InvalidInput, ValueError):
    """A mixture that cannot be made; the message is one line that helps."""


class IncompleteMixture(IncompleteData, MixtureError):
    """A source of a mixture is missing, or is not what it should be."""


@dataclass(frozen=True)
class Share:
    """`count` samples of a source: which ones, the seed says. instruction: what they are asked with.

    Answers that come without a question need an instruction; where questions come along it may be None, or hold
    "{question}" where the question goes.
    """

    name: str
    task: str
    source: SampleSource
    count: int
    instruction: str | None = None

    def conversation(self, turns: Sequence[str]) -> list[dict[str, str]]:
        """A sample's turns with their roles, "user" first."""
        if len(turns) % 2:
            turns = [self.instruction or "", *turns]
        elif self.instruction is not None:
            asked = [self.instruction.replace(QUESTION, question) for question in turns[::2]]
            turns = [turn for pair in zip(asked, turns[1::2], strict=True) for turn in pair]
        return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


class Mixture:
    """The samples of all shares. Raises IncompleteMixture if one asks for more than its source has."""

    def __init__(self, shares: Sequence[Share]) -> None:
        for share in shares:
            if share.count > len(share.source):
                line = f"{share.name}: {share.count:,} samples are asked for, its source has {len(share.source):,}"
                raise IncompleteMixture(line)
        self.shares = tuple(shares)
        self._ends = np.cumsum([share.count for share in shares], dtype=np.int64)

    @classmethod
    def of(cls, source: SampleSource, instruction: str, task: str = "caption") -> Mixture:
        """All samples of one source."""
        return cls([Share(task, task, source, len(source), instruction)])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def identity(self) -> str:
        """16 hex digits over all that decides which samples there are and what they say."""
        digest = hashlib.sha256()
        for share in self.shares:
            said = (share.name, share.task, share.source.identity, share.count, share.instruction)
            digest.update(repr(said).encode())
        return digest.hexdigest()[:16]

    def order(self, seed: int, epoch: int) -> Permutation:
        """The samples' order in an epoch."""
        return Permutation(len(self), f"order/{seed}/{epoch}")

    def locate(self, numbers: Numbers, seed: int) -> tuple[Numbers, Numbers]:
        """Of each sample the number of its share, and its number in that share's source.

        A share of less than its source holds the same samples in every epoch.
        """
        places = np.searchsorted(self._ends, numbers, side="right")
        rows = numbers.copy()
        for place in np.unique(places):
            share, mine = self.shares[place], places == place
            rows[mine] -= self._ends[place] - share.count
            if share.count < len(share.source):
                rows[mine] = Permutation(len(share.source), f"choice/{seed}/{share.name}")(rows[mine])
        return places, rows
