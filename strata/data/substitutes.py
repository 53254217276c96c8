"""Samples that cannot be read: when that is the sample's own fault, and which sample takes its place.

A sample is broken if its content is, or if its file cannot be read while another sample of its source can. If none
can, the storage of the source is away: it is tried again after pauses, and then the reading ends with SourceAway,
because a sample that is only away must not be replaced.

The place of a broken sample, number n of its source, is taken by number P(n), and if that is broken by P(n + 1), and so
on, where P is a permutation of the source's numbers that seed and epoch determine. Therefore any number of readers, and
a resumed run, take the same sample. Neighbours of n are not taken, because they may lie in the same broken shard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from strata.data.mixtures import Mixture, Share
from strata.data.permutations import Permutation
from strata.data.samples import Place, Sample, Skipped, decoded
from strata.data.sources.samples import RawSample, SampleError
from strata.errors import IncompleteData

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before each further attempt to read from a storage that is away
ATTEMPTS = 100  # samples that are tried for one place
WITNESSES = 8  # other samples that show whether anything of a source can be read
_LEAST = 10  # samples below which a limit does not count
_DEVIATIONS = 4.0  # by which one of many readers may be above the limit that is for all of them together


class SourceAway(IncompleteData):
    """Nothing of a source can be read any more, also after several attempts."""


class TooManySkipped(IncompleteData):
    """More samples cannot be read than the limit allows."""


@dataclass(frozen=True)
class SkipLimit:
    """The largest share of samples that may be replaced, of those read so far. The first ten never exceed it."""

    share: float = 0.01

    def check(self, skipped: int, read: int, first: str, part: bool = False) -> None:
        """Raise TooManySkipped if `skipped` of `read` samples are too many.

        first: why one of them could not be read. part: only one of several readers has read them, and so may be above
        the limit by chance: the number must exceed the expected one by four standard deviations (Poisson).
        """
        expected = self.share * read
        margin = _DEVIATIONS * expected**0.5 if part else 0.0
        if skipped > max(_LEAST, expected + margin):
            share = f"{skipped:,} of the {read:,} samples read so far cannot be read ({skipped / read:.1%})"
            raise TooManySkipped(f"{share}; the limit is {self.share:.1%}. One of them: {first}")


class Substitutes:
    """Reads single samples of a mixture, and those that take the place of broken ones. It can be pickled."""

    def __init__(self, mixture: Mixture, seed: int, pauses: Sequence[float] = PAUSES) -> None:
        self.mixture, self.seed, self.pauses = mixture, seed, tuple(pauses)
        self._witnesses: dict[int, int] = {}  # share -> the number of a sample that has been read

    def saw(self, share: int, number: int) -> None:
        """Note that a sample of a share has been read."""
        self._witnesses[share] = number

    def read(self, share: int, number: int) -> RawSample:
        """Read one sample. Raises SampleError if it is broken, and SourceAway if its storage is away."""
        source = self.mixture.shares[share].source
        for pause in (*self.pauses, None):
            try:
                raw = source.read([number])[0]
            except SampleError as error:
                failure = error
                # what the storage is the cause of may be there a moment later
                if error.cause == "content" or (error.cause == "absent" and self._answers(share, number)):
                    raise
            else:
                self.saw(share, number)
                return raw
            if pause is not None:
                time.sleep(pause)
        # one file that its storage never gives is broken, as long as the storage gives others
        if self._answers(share, number):
            raise failure
        raise SourceAway(f"{self.mixture.shares[share].name}: nothing of this source can be read: {failure}")

    def _answers(self, share: int, number: int) -> bool:
        """Whether another sample of a share's source can be read; True if it has no other."""
        source = self.mixture.shares[share].source
        chosen = [_permuted(len(source), f"witness/{attempt}", number) for attempt in range(WITNESSES)]
        known = [self._witnesses[share]] if share in self._witnesses else []
        others = [other for other in dict.fromkeys([*known, *chosen]) if other != number]
        for other in others:
            try:
                source.read([other])
            except SampleError:
                continue
            self.saw(share, other)
            return True
        return not others

    def substitute(self, place: Place, skipped: tuple[Skipped, ...]) -> Sample:
        """Read the sample that takes the place of those that could not be read.

        Raises TooManySkipped if none of many other samples of the source can be read, and SourceAway.
        """
        share = self.mixture.shares[place.share]
        for number in self._candidates(place, share, {one.number for one in skipped}):
            try:
                return decoded(place, share, number, self.read(place.share, number), skipped)
            except SampleError as error:
                skipped = (*skipped, Skipped.of(share.name, number, error))
        tried = f"{len(skipped):,} samples of this source, one after the other, cannot be read"
        raise TooManySkipped(f"{share.name}: {tried}; the last of them: {skipped[-1].reason}")

    def _candidates(self, place: Place, share: Share, tried: set[int]) -> Iterator[int]:
        """The numbers that follow in a shuffled order of the source, at most ATTEMPTS, without those in `tried`."""
        length = len(share.source)
        order = Permutation(length, f"instead/{self.seed}/{place.epoch}/{share.name}")
        following = (place.number + np.arange(min(ATTEMPTS, length))) % length
        return (number for number in order(following).tolist() if number not in tried)


def _permuted(length: int, name: str, number: int) -> int:
    return int(Permutation(length, name)(np.array([number]))[0])
