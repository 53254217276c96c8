"""Mixtures: the samples of several sources as one shuffled sequence, without an index in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strata.data.control_tokens import without_control_tokens
from strata.data.permutations import Numbers, Permutation
from strata.data.sources.conversations import IMAGE_TOKEN
from strata.data.sources.samples import RawSample, SampleSource
from strata.errors import IncompleteData, InvalidInput

QUESTION = "{question}"  # placeholder in an instruction for a sample's own question


class MixtureError(InvalidInput, ValueError):
    """A mixture is not valid. The message is one line with the reason."""


class IncompleteMixture(IncompleteData, MixtureError):
    """A source of a mixture is missing, cannot be read, or has too few samples."""


@dataclass(frozen=True)
class Share:
    """`count` samples of a source, chosen by the seed. If the source has fewer, its samples are repeated.

    instruction: the user's turn, or several, of which each sample gets one. It is required for samples without a
    question. For samples with a question it may be None, or contain "{question}" where the question is inserted.
    """

    name: str
    task: str
    source: SampleSource
    count: int
    instruction: str | tuple[str, ...] | None = None

    def conversation(self, raw: RawSample, draw: int = 0) -> list[dict[str, str]]:
        """The sample's turns with their roles: the system's if there is one, then "user" and "assistant" in turn.

        draw: a random number that chooses one of several instructions. The turns are free of control tokens, but for
        those that the source writes itself (its `markup`).
        """
        turns = raw.turns
        several = self.instruction if isinstance(self.instruction, tuple) else (self.instruction,)
        instruction = several[draw % len(several)]
        # an odd number of turns: an answer without a question
        if len(turns) % 2:
            turns = [instruction or "", *turns]
        # a question of the sample's own is inserted into the instruction, or replaced by it
        elif instruction is not None:
            questions = [instruction.replace(QUESTION, question) for question in turns[::2]]
            turns = [turn for pair in zip(questions, turns[1::2], strict=True) for turn in pair]
        roles = ["system"] * bool(raw.system) + [("user", "assistant")[index % 2] for index in range(len(turns))]
        # several images have their places in the texts
        markup = (*getattr(self.source, "markup", ()), *([IMAGE_TOKEN] if len(raw.images) > 1 else []))
        texts = [without_control_tokens(text, keep=markup) for text in [*([raw.system] if raw.system else []), *turns]]
        return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


class Mixture:
    """The samples of all shares. The constructor raises MixtureError if a share needs samples of an empty source."""

    def __init__(self, shares: Sequence[Share]) -> None:
        for share in shares:
            if share.count and not len(share.source):
                raise IncompleteMixture(f"{share.name}: {share.count:,} samples are needed, but its source has none")
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

        A share that is smaller than its source has the same samples in every epoch. A share that is larger has each
        sample of its source ⌊count / supply⌋ or ⌈count / supply⌉ times.
        """
        # the samples are numbered share after share: find the share of each number, and subtract the share's start
        share_indexes = np.searchsorted(self._ends, numbers, side="right")
        rows = numbers.copy()
        for index in np.unique(share_indexes):
            share, mine = self.shares[index], share_indexes == index
            rows[mine] -= self._ends[index] - share.count
            rows[mine] = _rows_of(share, rows[mine], seed)
        return share_indexes, rows


def _rows_of(share: Share, numbers: Numbers, seed: int) -> Numbers:
    """The rows in a share's source of the samples with these numbers in the share."""
    supply = len(share.source)
    # whole rounds take every row once; the samples of the last round are chosen by a permutation of the source
    whole = share.count // supply * supply
    rows = numbers % supply
    last = numbers >= whole
    if last.any():
        rows[last] = Permutation(supply, f"choice/{seed}/{share.name}")(numbers[last] - whole)
    return rows
