"""The keys of a shard's images: made of names, and unique within the shard."""

from __future__ import annotations

from hashlib import blake2b
from typing import ClassVar


class Keys:
    """Makes keys unique: a second "a" becomes "a-2"."""

    MAX_CHARACTERS: ClassVar[int] = 200

    def __init__(self) -> None:
        # hashes, because millions of keys would take a gigabyte; of two keys with one hash the second gets a number
        self._used: set[int] = set()
        self._next: dict[int, int] = {}

    def distinct(self, key: str) -> str:
        """The key, with a number after it if it was used before."""
        # remember the last number of each key: a shard with one key only would take quadratic time otherwise
        name, found = key, digest_of(key)
        if found in self._used:
            number = self._next.get(found, 2)
            while digest_of(name := f"{key}-{number}") in self._used:
                number += 1
            self._next[found] = number + 1
            found = digest_of(name)
        self._used.add(found)
        return name

    @classmethod
    def clean(cls, name: str) -> str:
        """Turn a name into a key: printable, valid Unicode, at most MAX_CHARACTERS long."""
        if not (name.isascii() and name.isprintable()):
            valid = name.encode("utf-8", "replace").decode()
            name = "".join(c if c.isprintable() else "_" for c in valid)
        return name[: cls.MAX_CHARACTERS]


def digest_of(key: str) -> int:
    """64 bits of a hash that is the same in each process: the keys of a shard must not depend on who reads it."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
