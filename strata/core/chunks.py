"""The chunk: up to N consecutive images of one shard, the unit that is queued, computed, written and retried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


def part_name(number: int, attempt: int) -> str:
    """The name of a chunk's part, without its extension.

    Whoever reads a folder of parts with pyarrow passes over names that begin with an underscore, and so does not
    see a chunk twice that was tried again.
    """
    return f"_{number:05d}.{attempt}" if attempt else f"{number:05d}"


@dataclass(frozen=True)
class Chunk:
    """One chunk of one group's work: a pointer, never image bytes.

    shard: URI of the tar, folder or upload. identity: hash that names the shard's content; empty for the group
    `index`, which finds it out. number: place in the shard. images: how many it holds (0 for `index`).
    attempt: 0, and one more for every retry of its failed images; each attempt has a part of its own.
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
        """The same for whoever asks for this work."""
        return f"{self.group}/{self.fingerprint}/{self.identity or self.shard}/{self.name}"

    @property
    def name(self) -> str:
        """Its name among the parts of its group, fingerprint and shard."""
        return part_name(self.number, self.attempt)

    @property
    def field(self) -> str:
        """Its name among a job's finished chunks."""
        return f"{self.identity}/{self.number:05d}" if self.identity else self.shard

    def to_fields(self) -> dict[str, str]:
        """As the fields of a stream message, its id first."""
        return {"id": self.id} | {name: str(value) for name, value in vars(self).items()}

    @classmethod
    def from_fields(cls, fields: dict[str, str]) -> Self:
        """The chunk of a stream message."""
        numbers = {name: int(fields[name]) for name in ("number", "images", "attempt")}
        return cls(**{name: text for name, text in fields.items() if name != "id"} | numbers)  # type: ignore[arg-type]

    def of_group(self, group: str, fingerprint: str) -> Chunk:
        """The same images in another group."""
        return replace(self, group=group, fingerprint=fingerprint)

    def before(self) -> Chunk:
        """The attempt before this one. Raises ValueError for the first."""
        if not self.attempt:
            raise ValueError("a first attempt has none before it")
        return replace(self, attempt=self.attempt - 1)
