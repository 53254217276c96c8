"""The chunk: up to N consecutive images of one shard; the unit of queueing, computing, writing and retrying."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

_CHOSEN = "#chosen/"  # between a shard's URI and the job that describes only some of its rows
# what follows the URI: the id of the job (empty in a preview) and the identity; another folder's name may begin so
_NAMED = re.compile(r"(.+)#chosen/([0-9a-f]{22}|)/([0-9a-f]{16})", re.DOTALL)
_HASH = 16  # digits of the identity of a shard, and of the hash of the rows that are chosen of it


def chosen_shard(uri: str, job_id: str, identity: str) -> str:
    """The name of those rows of a shard that a job has chosen (`Pin`): a shard of its own for the queue.

    identity: that of the whole shard, of which there are several if it has changed between two descriptions.
    """
    return f"{uri}{_CHOSEN}{job_id}/{identity}"


def source_shard(shard: str) -> str:
    """The URI of the shard that holds the images: the shard itself, or the one of which rows are chosen."""
    found = _NAMED.fullmatch(shard)
    return found[1] if found else shard


def chosen_by(shard: str) -> tuple[str, str] | None:
    """The job that has chosen these rows of a shard, and the identity of the shard; None for a whole shard."""
    found = _NAMED.fullmatch(shard)
    return (found[2], found[3]) if found else None


def chosen_identity(source: str, numbers: Iterable[int]) -> str:
    """The identity of some rows of a shard, by their numbers in it: that of the shard, then a hash of the numbers.

    So the same rows share their results, whichever job has chosen them, and the shard is compared with what it was.
    Raises ValueError for an identity that is not one of a whole shard.
    """
    if len(source) != _HASH:
        raise ValueError(f"{source!r} is not the identity of a shard of which rows can be chosen")
    return source + hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:_HASH]


def chosen_family(source: str) -> str:
    """The name under which a shard and the rows that were chosen of it are found (`ShardIndex.families`)."""
    return hashlib.sha256(f"chosen of {source}".encode()).hexdigest()[:_HASH]


def source_identity(identity: str) -> str:
    """The identity of the shard that holds the images, by that of the whole shard or of chosen rows."""
    return identity[:_HASH] if len(identity) == 2 * _HASH else identity


def part_name(number: int, attempt: int) -> str:
    """The file name of a chunk's part, without its extension."""
    return f"{number:05d}.{attempt}" if attempt else f"{number:05d}"


@dataclass(frozen=True)
class Chunk:
    """One chunk of one group's work. It refers to images and holds no image bytes.

    shard: URI of the tar, folder or upload; of chosen rows of it see `chosen_shard`. identity: hash of the shard's
    content; empty for the group `index`, which determines it. number: index among the shard's chunks. images: the
    number of images (0 for `index`). attempt: 0, and one more for every retry of its failed images; each attempt has
    its own part.
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
