"""Samples of a webdataset tar, found in one pass over its headers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, ClassVar

from strata.shards.tar_headers import BLOCK, Header, Headers, Window

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})


@dataclass(slots=True)
class Sample:
    """Consecutive members whose names are equal up to the first dot; `key` is that part, without folders.

    members: by extension (lower case, all after the first dot). txt, json: what those members hold. cut: the last
    member lacks bytes, as the next header was found inside of it.
    """

    prefix: str
    key: str
    members: dict[str, Header] = field(default_factory=dict)
    txt: bytes = b""
    json: bytes = b""
    cut: bool = False

    def image(self) -> Header | None:
        """KEY.jpg before KEY.anything.jpg, which is often a mask or a thumbnail."""
        inner = None
        for extension, header in self.members.items():
            if extension in IMAGE_EXTENSIONS:
                return header
            if inner is None and extension.rpartition(".")[2] in IMAGE_EXTENSIONS:
                inner = header
        return inner

    def alt_text(self) -> str | None:
        """The .txt, or else the caption in the .json."""
        text = AltText.from_txt(self.txt)
        return AltText.from_json(self.json) if text is None and self.json else text


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
        return cls.from_text(caption) if isinstance(caption, str) else None

    @classmethod
    def from_text(cls, text: str) -> str | None:
        """The text as one that can be written: a lone surrogate (\\ud800) is legal JSON, but no character."""
        return cls.from_txt(text.encode("utf-8", "replace"))


class Keys:
    """Hands out each key once: a second "a" becomes "a-2"."""

    MAX_CHARACTERS: ClassVar[int] = 200

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def distinct(self, key: str) -> str:
        """The key, with a number behind it if it was there before."""
        name = key
        if key in self._used:
            number = self._next.get(key, 2)
            while (name := f"{key}-{number}") in self._used:
                number += 1
            self._next[key] = number + 1
        self._used.add(name)
        return name

    @classmethod
    def clean(cls, name: str) -> str:
        """A name as a key: printable, valid Unicode, not too long."""
        if not (name.isascii() and name.isprintable()):
            valid = name.encode("utf-8", "replace").decode()
            name = "".join(c if c.isprintable() else "_" for c in valid)
        return name[: cls.MAX_CHARACTERS]


class TarReader:
    """Walks a tar of `size` bytes once, forward."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._size = size
        self._window = Window(file)
        self._headers = Headers(self._window, size)

    def samples(self) -> Iterator[Sample]:
        """Samples in the order they lie. Members without a key (.hidden) or an extension are passed over."""
        sample: Sample | None = None
        end = 0  # of the sample's last member
        for header in self._headers:
            name, offset, size, plain = header
            folder, _, base = name.replace("\\", "/").rpartition("/")
            key, _, extension = base.partition(".")
            if sample is not None and offset - BLOCK < end:
                sample.cut = True
            if not key or not extension:
                continue
            prefix, extension = f"{folder}/{key}" if folder else key, extension.lower()
            if sample is None or sample.prefix != prefix or extension in sample.members:
                if sample is not None:
                    yield sample
                sample = Sample(prefix, Keys.clean(key))
            sample.members[extension] = header
            end = offset + size if plain else 0
            if extension == "txt":
                sample.txt = self._text(header)
            elif extension == "json" and not sample.txt:  # a text that came before is enough
                sample.json = self._text(header)
        if sample is not None:
            yield sample

    def _text(self, header: Header) -> bytes:
        """A text's bytes; it lies in the window as long as the next header has not been asked for."""
        _, offset, size, plain = header
        if not plain or offset + size > self._size:
            return b""
        return self._window.read(offset, size if size < AltText.MAX_BYTES else AltText.MAX_BYTES)

    def defect(self, sample: Sample, image: Header) -> str | None:
        """Why the image of a sample cannot be used, or None."""
        if not image.plain:
            return "the image is a link, not a file"
        if image.offset + image.size > self._size:
            return "the tar ends inside of this image"
        if sample.cut and image is next(reversed(sample.members.values())):
            return "the tar is damaged inside of this image"
        return None if image.size else "an empty file"

    def failure(self, images: int) -> str | None:
        """Why the tar could not be read, or not all of it, once `samples` has ended; images: how many were good."""
        headers, told = self._headers, []
        if headers.gaps:
            first, behind = headers.gaps[0]
            told.append(f"damaged at byte {first:,}, {behind - first:,} bytes passed over")
            told[0] += f" (the first of {len(headers.gaps):,} places)" if len(headers.gaps) > 1 else ""
        if headers.ending:
            told.append(f"{headers.ending} after {images:,} images" if headers.begun else headers.ending)
        return "; ".join(told) or None
