"""The paths of parts, and which attempts at the chunks of a shard have one.

The newest attempt at a chunk lies in `parts/GROUP/FINGERPRINT/IDENTITY/`: `00003.parquet`, or `00003.2.parquet` for
attempt 2. So who reads this folder reads every row once. The attempts before it lie in `superseded/`, under the same
names. Stores of earlier versions have all attempts in `parts/`, the later ones as `_00003.2.parquet`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from strata.core import Chunk, part_name

_PATH = re.compile(r"(?:parts|superseded)/([a-z]+)/([0-9a-f]+)/([^/.][^/]*)/_?(\d+)(?:\.(\d+))?\.parquet", re.ASCII)
_NAME = re.compile(r"(_?)(\d+)(?:\.(\d+))?\.(parquet|broken)", re.ASCII)


class Part(NamedTuple):
    """The fields of a part's path, in the order by which parts are sorted."""

    group: str
    fingerprint: str
    identity: str
    number: int
    attempt: int

    @classmethod
    def parse(cls, path: str) -> Part:
        """The part at a path relative to the store's root, also of a superseded one. Raises ValueError."""
        found = _PATH.fullmatch(path)
        if found is None:
            raise ValueError(f"{path!r} is not the path of a part")
        return cls(found[1], found[2], found[3], int(found[4]), int(found[5] or 0))

    @classmethod
    def find(cls, path: str) -> Part | None:
        """The part at a path as `parse` takes it; None for a path of another file."""
        return cls.parse(path) if _PATH.fullmatch(path) else None

    @classmethod
    def of_chunk(cls, chunk: Chunk) -> Part:
        """The part of a chunk."""
        return cls(chunk.group, chunk.fingerprint, chunk.identity, chunk.number, chunk.attempt)

    @property
    def folder(self) -> str:
        """The folder of its shard's parts, relative to `parts/` or `superseded/`."""
        return f"{self.group}/{self.fingerprint}/{self.identity}"

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{part_name(self.number, self.attempt)}.parquet"

    @property
    def path(self) -> str:
        """Its path relative to the store's root, if it is of the newest attempt."""
        return f"parts/{self.folder}/{self.name}"

    @property
    def superseded_path(self) -> str:
        """Its path relative to the store's root, if there is a newer attempt."""
        return f"superseded/{self.folder}/{self.name}"

    @property
    def earlier_path(self) -> str:
        """Its path in stores of earlier versions, if it is not of the first attempt."""
        return f"parts/{self.folder}/_{self.name}"

    @property
    def marker(self) -> str:
        """The path of the mark that the newest attempt's part was broken and must be computed again."""
        return f"parts/{self.folder}/_{part_name(self.number, self.attempt)}.broken"

    @property
    def places(self) -> tuple[str, ...]:
        """The paths at which it may lie, in the order in which they are tried.

        The first two follow again at the end, because a part may be moved between two tries.
        """
        now = (self.path, self.superseded_path)
        return (*now, self.earlier_path, *now) if self.attempt else now


def last_attempts(parts: Iterable[Part]) -> list[Part]:
    """One part for each chunk, sorted: that of its last attempt.

    The part of an attempt has copies of all rows that succeeded in the attempts before.
    """
    return list({part[:-1]: part for part in sorted(parts)}.values())


@dataclass(frozen=True)
class Attempts:
    """The attempts at chunks of one shard that have a part in `parts/`, from one listing of its folder.

    found: for each number the attempts, each with the name of its file, or with both names if a process has died while
    it renamed the file; broken: for each number the attempt whose part was set aside and has to be computed again.
    """

    found: dict[int, dict[int, list[str]]] = field(default_factory=dict)
    broken: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of_names(cls, names: Iterable[str]) -> Attempts:
        """The attempts of a folder with these files; other files are ignored."""
        attempts = cls()
        for name in sorted(names):
            parsed = _NAME.fullmatch(name)
            if parsed is None:
                continue
            number, attempt = int(parsed[2]), int(parsed[3] or 0)
            if parsed[4] == "broken":
                attempts.broken[number] = max(attempt, attempts.broken.get(number, 0))
            else:
                attempts.found.setdefault(number, {}).setdefault(attempt, []).append(name)
        return attempts

    def needed(self, chunk: Chunk) -> Chunk:
        """The chunk with the least attempt that counts: its own, or that of a broken part if that is newer."""
        return replace(chunk, attempt=max(chunk.attempt, self.broken.get(chunk.number, 0)))

    def newest(self, chunk: Chunk) -> Chunk | None:
        """The chunk with its newest attempt; None if that is older than the attempt that is needed."""
        attempt = max(self.found.get(chunk.number, ()), default=-1)
        return replace(chunk, attempt=attempt) if attempt >= self.needed(chunk).attempt else None

    def misplaced(self, folder: Part) -> Iterator[tuple[Part, str]]:
        """The parts that are not where they belong, each with the name of its file. folder: any part of the folder."""
        for number, attempts in self.found.items():
            newest = max(attempts)
            for attempt, names in attempts.items():
                part = folder._replace(number=number, attempt=attempt)
                yield from ((part, name) for name in names if attempt != newest or name != part.name)
