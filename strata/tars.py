"""Samples of a webdataset tar, found in one pass over its headers."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, ClassVar

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """One file of a tar: its extension (lower case, all after the first dot) and where its bytes lie."""

    extension: str
    offset: int
    size: int
    plain: bool  # false for links, folders, sparse files: their bytes do not lie there


@dataclass
class Sample:
    """Consecutive members whose names are equal up to the first dot; `key` is that part of the last name."""

    prefix: str
    key: str
    members: dict[str, Member] = field(default_factory=dict)


class AltText:
    """Alt text from the bytes of a .txt or a .json member."""

    MAX_CHARACTERS: ClassVar[int] = 4096
    MAX_BYTES: ClassVar[int] = 2**20

    @classmethod
    def from_txt(cls, data: bytes) -> str | None:
        """The text, or None if there is none."""
        return data[: 4 * cls.MAX_CHARACTERS].decode("utf-8", "replace").strip()[: cls.MAX_CHARACTERS] or None

    @classmethod
    def from_json(cls, data: bytes) -> str | None:
        """The value of "caption", or None."""
        try:
            caption = json.loads(data).get("caption")
        except (ValueError, AttributeError, RecursionError):
            return None
        # a lone surrogate (\\ud800) is legal JSON, but no text that could be written again
        return cls.from_txt(caption.encode("utf-8", "replace")) if isinstance(caption, str) else None


class Keys:
    """Hands out each key once: a second "a" becomes "a-2"."""

    MAX_CHARACTERS: ClassVar[int] = 200

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def distinct(self, key: str) -> str:
        """The key, with a number behind it if it was there before."""
        name, number = key, self._next.get(key, 2)
        while name in self._used:
            name = f"{key}-{number}"
            number += 1
        self._next[key] = number
        self._used.add(name)
        return name

    @classmethod
    def clean(cls, name: str) -> str:
        """A name as a key: printable, valid Unicode, not too long."""
        valid = name.encode("utf-8", "replace").decode()
        return "".join(c if c.isprintable() else "_" for c in valid)[: cls.MAX_CHARACTERS]


class TarReader:
    """Walks a tar once. After `samples` is exhausted, `failure` says why the tar did not end as a tar ends.

    begun: whether the file was read as a tar at all.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self.failure: str | None = None
        self.begun = False

    def samples(self) -> Iterator[Sample]:
        """Samples in the order they lie. Members without a key (.hidden) or an extension are passed over."""
        sample: Sample | None = None
        for info in self._headers():
            prefix, key, extension = _split(info.name)
            if not key or not extension or info.isdir():
                continue
            if sample is None or sample.prefix != prefix or extension in sample.members:
                if sample is not None:
                    yield sample
                sample = Sample(prefix, key)
            plain = info.isreg() and not info.issparse()
            sample.members[extension] = Member(extension, info.offset_data, info.size, plain)
        if sample is not None:
            yield sample

    def _headers(self) -> Iterator[tarfile.TarInfo]:
        if self._size == 0:
            self.failure = "an empty file"
            return
        try:
            tar = tarfile.open(fileobj=self._file, mode="r:", encoding="utf-8", errors="replace")  # noqa: SIM115
        except (tarfile.TarError, ValueError, OverflowError, IndexError):
            self.failure = self._no_tar()
            return
        self.begun = True
        before = -1
        while True:
            try:
                info = tar.next()
            except (tarfile.TarError, ValueError, OverflowError, IndexError):
                self.failure = "truncated" if tar.offset >= self._size else "damaged"
                return
            if info is None:
                self.failure = self._ending(tar.offset)
                return
            tar.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every header
            if tar.offset <= before or info.size < 0 or info.offset_data < 0:
                self.failure = "damaged"
                return
            before = tar.offset
            yield info
            if info.isreg() and info.offset_data + info.size > self._size:
                self.failure = "truncated"
                return

    def _no_tar(self) -> str:
        magic = self._read(0, 6)
        if magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            return "a compressed tar: unpack it to a plain .tar, images are read by their offsets"
        return "not a tar"

    def _ending(self, offset: int) -> str | None:
        """tarfile stops without a word at a broken header; a whole tar ends with a block of zeros."""
        block = self._read(offset, _BLOCK)
        if len(block) < _BLOCK:
            return "truncated"
        return "damaged" if any(block) else None

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def defect(self, member: Member) -> str | None:
        """Why a member's bytes cannot be used, or None."""
        if not member.plain:
            return "the image is a link, not a file"
        if member.offset + member.size > self._size:
            return "the tar ends inside of this image"
        return None if member.size else "an empty file"

    def alt_text(self, sample: Sample) -> str | None:
        """The sample's .txt, or the caption in its .json."""
        for extension, read in (("txt", AltText.from_txt), ("json", AltText.from_json)):
            member = sample.members.get(extension)
            if member is None or self.defect(member):
                continue
            text = read(self._read(member.offset, min(member.size, AltText.MAX_BYTES)))
            if text is not None:
                return text
        return None


def _split(name: str) -> tuple[str, str, str]:
    """A member's name as (all up to the first dot of its last part, key, extension)."""
    folder, _, base = name.replace("\\", "/").rpartition("/")
    key, _, extension = base.partition(".")
    return f"{folder}/{key}", Keys.clean(key), extension.lower()
