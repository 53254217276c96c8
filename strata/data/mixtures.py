"""Mixtures: the samples of several sources as one shuffled sequence, without an index in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strata.data.control_tokens import without_control_tokens
from strata.data.permutations import Numbers, Permutation
from strata.data.sources.samples import SampleSource
from strata.errors import IncompleteData, InvalidInput

QUESTION = "{question}"  # placeholder in an instruction for a sample's own question


class MixtureError(InvalidInput, ValueError):
    """A mixture is not valid. The message is one line with the reason."""


class IncompleteMixture(IncompleteData, MixtureError):
    """A source of a mixture is missing, cannot be read, or has too few samples."""


@dataclass(frozen=True)
class Share:
    """`count` samples of a source, chosen by the seed.

    instruction: the user's turn. It is required for samples without a question. For samples with a question it may be
    None, or contain "{question}" where the question is inserted.
    """

    name: str
    task: str
    source: SampleSource
    count: int
    instruction: str | None = None

    def conversation(self, turns: Sequence[str]) -> list[dict[str, str]]:
        """The sample's turns with their roles, "user" first.

        They are free of control tokens, but for those that the source writes itself (its `markup`).
        """
        # an odd number of turns: an answer without a question
        if len(turns) % 2:
            turns = [self.instruction or "", *turns]
        # a question of the sample's own is inserted into the instruction, or replaced by it
        elif self.instruction is not None:
            questions = [self.instruction.replace(QUESTION, question) for question in turns[::2]]
            turns = [turn for pair in zip(questions, turns[1::2], strict=True) for turn in pair]
        markup = getattr(self.source, "markup", ())
        bare = [without_control_tokens(turn, keep=markup) for turn in turns]
        return [{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(bare)]


class Mixture:
    """The samples of all shares. The constructor raises MixtureError if a share needs more than its source has."""

    def __init__(self, shares: Sequence[Share]) -> None:
        for share in shares:
            if share.count > len(share.source):
                line = f"{share.name}: {share.count:,} samples are needed, but its source has {len(share.source):,}"
                raise IncompleteMixture(line)
        self.shares = tuple(shares)
        self._ends = np.cumsum([share.count for share in shares], dtype=np.int64)

    @classmethod
    def of(cls, source: SampleSource, instruction: str, task: str = "caption") -> Mixture:
        """The mixture of all samples of one source."""
        return cls([Share(task, task, source, len(source), instruction)])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def identity(self) -> str:
        """A hash (16 hex digits) of everything that determines the samples and their texts."""
        digest = hashlib.sha256()
        for share in self.shares:
            fields = (share.name, share.task, share.source.identity, share.count, share.instruction)
            digest.update(repr(fields).encode())
        return digest.hexdigest()[:16]

    def order(self, seed: int, epoch: int) -> Permutation:
        """The order of the samples in an epoch."""
        return Permutation(len(self), f"order/{seed}/{epoch}")

    def locate(self, numbers: Numbers, seed: int) -> tuple[Numbers, Numbers]:
        """The index of each sample's share, and the sample's number in that share's source.

        A share that is smaller than its source has the same samples in every epoch.
        """
        # the samples are numbered share after share: find the share of each number, and subtract the share's start
        share_indexes = np.searchsorted(self._ends, numbers, side="right")
        rows = numbers.copy()
        for index in np.unique(share_indexes):
            share, mine = self.shares[index], share_indexes == index
            rows[mine] -= self._ends[index] - share.count
            # choose the samples of a smaller share by a permutation of its source
            if share.count < len(share.source):
                rows[mine] = Permutation(len(share.source), f"choice/{seed}/{share.name}")(rows[mine])
        return share_indexes, rows
