"""The chunk: up to N consecutive images of one shard; the unit of queueing, computing, writing and retrying."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self


def part_name(number: int, attempt: int) -> str:
    """The file name of a chunk's part, without its extension."""
    return f"{number:05d}.{attempt}" if attempt else f"{number:05d}"


@dataclass(frozen=True)
class Chunk:
    """One chunk of one group's work. It refers to images and holds no image bytes.

    shard: URI of the tar, folder or upload. identity: hash of the shard's content; empty for the group `index`, which
    determines it. number: index among the shard's chunks. images: the number of images (0 for `index`). attempt: 0,
    and one more for every retry of its failed images; each attempt has its own part.
    """

    group: str
    profile: str
    fingerprint: str
    shard: str
    identity: str = ""
    number: int = 0
    images: int = 0
    attempt: int = 0

    @property
    def id(self) -> str:
        """Identifies this work; equal for all jobs that need it."""
        return f"{self.group}/{self.fingerprint}/{self.identity or self.shard}/{self.name}"

    @property
    def name(self) -> str:
        """The name of its part in the folder of its group, fingerprint and shard."""
        return part_name(self.number, self.attempt)

    @property
    def field(self) -> str:
        """Its field in the Redis hash of a job's finished chunks."""
        # a shard has only one chunk of the group `index`, which does not know the identity yet
        return f"{self.identity}/{self.number:05d}" if self.identity else self.shard

    def to_fields(self) -> dict[str, str]:
        """Convert to the fields of a stream message, its id first."""
        return {"id": self.id} | {name: str(value) for name, value in vars(self).items()}

    @classmethod
    def from_fields(cls, fields: Mapping[str, str]) -> Self:
        """Parse the fields of a stream message.

        Others than the chunk's own are passed over: the id, which follows from them, what the queue adds, and what a
        later version adds, whose messages this one gets while a service is upgraded.
        """
        own = {one.name: fields[one.name] for one in dataclasses.fields(cls) if one.name in fields}
        # Redis returns texts
        numbers = {name: int(own[name]) for name in ("number", "images", "attempt") if name in own}
        return cls(**own | numbers)  # type: ignore[arg-type]

    def of_group(self, group: str, fingerprint: str) -> Chunk:
        """The chunk with the same images in another group."""
        return replace(self, group=group, fingerprint=fingerprint)
