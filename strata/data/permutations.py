"""Permutations that are computed index by index, so that a shuffle of any length needs no memory."""

from __future__ import annotations

import hashlib
import math

import numpy as np

Numbers = np.typing.NDArray[np.int64]

ROUNDS = 8


class Permutation:
    """A pseudo-random permutation of 0..length-1 that a name determines, the same on every machine and numpy version.

    It is a generalised Feistel cipher over pairs of digits to the base ⌈√length⌉, with cycle walking for values
    outside the range (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002) and splitmix64's
    finaliser as its round function. Google's Grain shuffles its global index in the same way.
    """

    def __init__(self, length: int, name: str) -> None:
        self.length = length
        # the smallest base whose square is at least the length, so that few values are out of range
        self._base = np.uint64(math.isqrt(max(length - 1, 0)) + 1)
        # one key of 64 bits for each round, from the name
        digest = b"".join(hashlib.sha256(f"{part}/{name}".encode()).digest() for part in range(ROUNDS // 4))
        self._keys = np.frombuffer(digest, dtype="<u8")

    def __call__(self, indexes: Numbers) -> Numbers:
        """The permuted numbers at some indexes, each in 0..length-1. Returns int64 of the same shape."""
        numbers = self._cipher(indexes.astype(np.uint64))
        # the cipher permutes 0..base²-1: apply it again to values outside the range until all are inside
        while (outside := numbers >= self.length).any():
            numbers[outside] = self._cipher(numbers[outside])
        return numbers.astype(np.int64)

    def _cipher(self, numbers: np.typing.NDArray[np.uint64]) -> np.typing.NDArray[np.uint64]:
        # the two digits; in each round one is added to a hash of the other
        left, right = numbers // self._base, numbers % self._base
        for key in self._keys:
            left, right = right, (left + _mixed(right ^ key) % self._base) % self._base
        return left * self._base + right


def drawn(indexes: Numbers, name: str) -> Numbers:
    """A pseudo-random number of 0..2**31-1 for each index, which the name determines. Returns int64, same shape."""
    (key,) = np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], dtype="<u8")
    return (_mixed(indexes.astype(np.uint64) ^ key) >> np.uint64(33)).astype(np.int64)


def _mixed(values: np.typing.NDArray[np.uint64]) -> np.typing.NDArray[np.uint64]:
    """splitmix64's finaliser (Steele et al., OOPSLA 2014); products are taken modulo 2**64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
