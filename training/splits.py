"""A part of a mixture's samples: what is held out for validation, and what remains to train on."""

from __future__ import annotations

import hashlib

from strata.data import Mixture
from strata.data.permutations import Numbers, Permutation


class Part(Mixture):
    """`count` samples of a mixture from `start` on, in an order that the seed of the split determines.

    Samples are split, not images: an image with several samples may be in both parts. Give a validation mixture of
    its own where that matters.
    """

    def __init__(self, mixture: Mixture, seed: int, start: int, count: int) -> None:
        super().__init__(mixture.shares)
        self._mixture, self._start, self._count = mixture, start, count
        self._split = Permutation(len(mixture), f"split/{seed}")
        self._name = f"{mixture.identity}/{seed}/{start}/{count}"

    def __len__(self) -> int:
        return self._count

    @property
    def identity(self) -> str:
        """A hash (16 hex digits) of everything that determines the samples and their texts."""
        return hashlib.sha256(self._name.encode()).hexdigest()[:16]

    def locate(self, numbers: Numbers, seed: int) -> tuple[Numbers, Numbers]:
        """The index of each sample's share, and the sample's number in that share's source."""
        return self._mixture.locate(self._split(numbers + self._start), seed)


def split(mixture: Mixture, seed: int, held_out: float) -> tuple[Part, Part]:
    """Split a mixture into what is trained on and a share that is held out, of at least one sample."""
    count = max(1, round(len(mixture) * held_out))
    return Part(mixture, seed, 0, len(mixture) - count), Part(mixture, seed, len(mixture) - count, count)
