"""The paths of parts, and which attempts at the chunks of a shard have one.

The newest attempt at a chunk lies in `parts/GROUP/FINGERPRINT/IDENTITY/`: `00003.parquet`, or `00003.2.parquet` for
attempt 2. So who reads this folder reads every row once. The attempts before it lie in `superseded/`, under the same
names. Stores of earlier versions have all attempts in `parts/`, the later ones as `_00003.2.parquet`.

`strata compact` puts small parts of a shard into bundles: `bundle-00003-0_2-HASH.parquet` has those of the chunks 3 (of
attempt 0) and 5 (of attempt 2). The name tells it, so that a listing is enough to know which parts there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from strata.core import Chunk, part_name

_PATH = re.compile(r"(?:parts|superseded)/([a-z]+)/([0-9a-f]+)/([^/.][^/]*)/_?(\d+)(?:\.(\d+))?\.parquet", re.ASCII)
_NAME = re.compile(r"(_?)(\d+)(?:\.(\d+))?\.(parquet|broken)", re.ASCII)

_BUNDLE = re.compile(r"bundle-(\d+)-([0-9a-z][0-9a-z_]*)-([0-9a-f]{16})\.parquet", re.ASCII)
_BUNDLE_PATH = re.compile(r"parts/([a-z]+)/([0-9a-f]+)/([^/.][^/]*)/([^/]+)", re.ASCII)
_ATTEMPTS = "0123456789abcdefghijklmnopqrstuvwxyz"  # one character an attempt in the name of a bundle
MOST_ATTEMPT = len(_ATTEMPTS) - 1  # of a part in a bundle
MOST_BUNDLED = 64  # numbers that a bundle spans: its name and its footer grow with them
LOCK = "compacting.parquet"  # while it is in a folder, parts are in small files and in a bundle at once

Held = tuple[tuple[int, int], ...]  # of the parts in a bundle, number and attempt, ascending


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


class Bundle(NamedTuple):
    """The fields of a bundle's path. held: which parts it has, in the order of its row groups; digest: of its bytes."""

    group: str
    fingerprint: str
    identity: str
    held: Held
    digest: str

    @classmethod
    def find(cls, path: str) -> Bundle | None:
        """The bundle at a path relative to the store's root; None for a path of another file."""
        place = _BUNDLE_PATH.fullmatch(path)
        found = _BUNDLE.fullmatch(place[4]) if place else None
        return cls(place[1], place[2], place[3], _held(found), found[3]) if place and found else None

    @property
    def path(self) -> str:
        """Its path relative to the store's root."""
        first, attempts = self.held[0][0], dict(self.held)
        told = "".join(
            _ATTEMPTS[attempts[number]] if number in attempts else "_" for number in range(first, self.held[-1][0] + 1)
        )
        return f"parts/{self.group}/{self.fingerprint}/{self.identity}/bundle-{first:05d}-{told}-{self.digest}.parquet"

    @property
    def parts(self) -> list[Part]:
        """The parts that it has."""
        return [Part(*self[:3], *each) for each in self.held]


def _held(name: re.Match[str]) -> Held:
    places = enumerate(name[2], int(name[1]))
    return tuple((number, _ATTEMPTS.index(told)) for number, told in places if told != "_")


def parts_at(path: str) -> list[Part]:
    """The parts in a file of the store, by its path: one, those of a bundle, or none."""
    part, bundle = Part.find(path), Bundle.find(path)
    return [part] if part else bundle.parts if bundle else []


def last_attempts(parts: Iterable[Part]) -> list[Part]:
    """One part for each chunk, sorted: that of its last attempt.

    The part of an attempt has copies of all rows that succeeded in the attempts before.
    """
    return list({part[:-1]: part for part in sorted(parts)}.values())


@dataclass(frozen=True)
class Attempts:
    """The attempts at chunks of one shard that have a part in `parts/`, from one listing of its folder.

    found: for each number the attempts, each with the name of its file, or with several if a process has died while it
    renamed or bundled the file; broken: for each number the attempt whose part was set aside and has to be computed
    again; bundles: those of the files that are bundles, with what they hold; locked: whether parts are being bundled.
    """

    found: dict[int, dict[int, list[str]]] = field(default_factory=dict)
    broken: dict[int, int] = field(default_factory=dict)
    bundles: dict[str, Held] = field(default_factory=dict)
    locked: bool = False

    @classmethod
    def of_names(cls, names: Iterable[str]) -> Attempts:
        """The attempts of a folder with these files; other files are ignored."""
        names = sorted(names)
        attempts = cls(locked=LOCK in names)
        for name in names:
            parsed, bundle = _NAME.fullmatch(name), _BUNDLE.fullmatch(name)
            if bundle is not None:
                attempts.bundles[name] = _held(bundle)
                for number, attempt in attempts.bundles[name]:
                    attempts.found.setdefault(number, {}).setdefault(attempt, []).append(name)
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
        """The parts that are not where they belong, each with the name of its file. folder: any part of the folder.

        Parts in bundles are not among them, see `outdated`.
        """
        for number, attempts in self.found.items():
            newest = max(attempts)
            for attempt, names in attempts.items():
                part = folder._replace(number=number, attempt=attempt)
                files = [name for name in names if name not in self.bundles]
                yield from ((part, name) for name in files if attempt != newest or name != part.name)

    def outdated(self) -> list[str]:
        """The bundles with a part that a newer attempt has superseded."""
        return [
            name
            for name, held in self.bundles.items()
            if any(attempt < max(self.found[number]) for number, attempt in held)
        ]

    def doubled(self) -> bool:
        """Whether a part is in a bundle and in a file of its own, or in two bundles."""
        return any(
            len(names) > 1 and not self.bundles.keys().isdisjoint(names)
            for attempts in self.found.values()
            for names in attempts.values()
        )

    def bundle_of(self, number: int, attempt: int) -> str | None:
        """The bundle with a part that has no file of its own."""
        names = self.found.get(number, {}).get(attempt, [])
        return names[0] if names and names[0] in self.bundles else None
