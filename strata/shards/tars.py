"""Group the members of a webdataset tar into samples, in one pass over its headers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import IO, ClassVar

from strata.shards.members import BLOCK
from strata.shards.tar_headers import Header, Headers, Window

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})


MAX_MEMBERS = 1000  # of one sample that are kept
STAMPED = 128 * 2**10  # bytes in each of three places of a large image that its stamp is made from
_TIME = slice(136, 148)  # of a header: the member's modification time


def _is_image(extension: str) -> bool:
    return extension.rpartition(".")[2] in IMAGE_EXTENSIONS


@dataclass(slots=True)
class Sample:
    """Consecutive members whose names are equal up to the first dot; `key` is that part, without folders.

    members: by extension (lower case, everything after the first dot). txt, json: the content of those members.
    stamps: of its images, by extension. cut: the last member's content is incomplete, because the next header was found
    inside its range.
    """

    prefix: str
    key: str
    members: dict[str, Header] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    txt: bytes = b""
    json: bytes = b""
    cut: bool = False

    def image(self) -> tuple[Header, str | None] | None:
        """The image member and its stamp. KEY.jpg is preferred to KEY.anything.jpg, often a mask or a thumbnail."""
        inner = None
        for extension, header in self.members.items():
            if extension in IMAGE_EXTENSIONS:
                return header, self.stamps.get(extension)
            if inner is None and _is_image(extension):
                inner = header, self.stamps.get(extension)
        return inner

    def alt_text(self) -> str | None:
        """The text of the .txt member, else the caption in the .json member."""
        text = AltText.from_txt(self.txt)
        return AltText.from_json(self.json) if text is None and self.json else text


class AltText:
    """Alt text from the bytes of a .txt or a .json member."""

    MAX_CHARACTERS: ClassVar[int] = 4096
    MAX_BYTES: ClassVar[int] = 2**20

    @classmethod
    def from_txt(cls, data: bytes) -> str | None:
        """Decode and trim a text; None if it is empty."""
        return data[: 4 * cls.MAX_CHARACTERS].decode("utf-8", "replace").strip()[: cls.MAX_CHARACTERS] or None

    @classmethod
    def from_json(cls, data: bytes) -> str | None:
        """The value of "caption" in a JSON object, or None."""
        try:
            caption = json.loads(data).get("caption")
        except (ValueError, AttributeError, RecursionError):
            return None
        return cls.from_text(caption) if isinstance(caption, str) else None

    @classmethod
    def from_text(cls, text: str) -> str | None:
        """Make a text encodable: a lone surrogate (\\ud800) is legal in JSON but cannot be encoded as UTF-8."""
        return cls.from_txt(text.encode("utf-8", "replace"))


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
        name, digest = key, _digest(key)
        if digest in self._used:
            number = self._next.get(digest, 2)
            while _digest(name := f"{key}-{number}") in self._used:
                number += 1
            self._next[digest] = number + 1
            digest = _digest(name)
        self._used.add(digest)
        return name

    @classmethod
    def clean(cls, name: str) -> str:
        """Turn a name into a key: printable, valid Unicode, at most MAX_CHARACTERS long."""
        if not (name.isascii() and name.isprintable()):
            valid = name.encode("utf-8", "replace").decode()
            name = "".join(c if c.isprintable() else "_" for c in valid)
        return name[: cls.MAX_CHARACTERS]


def _digest(key: str) -> int:
    """64 bits of a hash that is the same in each process: the keys of a shard must not depend on who reads it."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class TarReader:
    """Reads a tar of `size` bytes once, forward."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._size = size
        self._window = Window(file, size)
        self._headers = Headers(self._window, size)

    def samples(self) -> Iterator[Sample]:
        """Yield samples in file order. Members without a key (.hidden) or an extension are skipped."""
        sample: Sample | None = None
        end = 0  # of the content of the sample's last member
        for header in self._headers:
            # split the name into folder, key and extension
            name, offset, size, plain = header
            folder, _, base = name.replace("\\", "/").rpartition("/")
            key, _, extension = base.partition(".")
            # a header inside the last member's content means that this content is incomplete
            if sample is not None and offset - BLOCK < end:
                sample.cut = True
            if not key or not extension:
                continue
            # another key, or an extension that the sample has already, begins the next sample
            prefix, extension = f"{folder}/{key}" if folder else key, extension.lower()
            if sample is None or sample.prefix != prefix or extension in sample.members:
                if sample is not None:
                    yield sample
                sample = Sample(prefix, Keys.clean(key))
            if len(sample.members) < MAX_MEMBERS:
                sample.members[extension] = header
            end = offset + size if plain else 0
            # read texts and some bytes of images now, while they are in the window
            if _is_image(extension):
                if plain and offset + size <= self._size:
                    sample.stamps[extension] = self._stamp(header)
            elif extension == "txt":
                sample.txt = self._text(header)
            elif extension == "json" and not sample.txt:  # a text has priority
                sample.json = self._text(header)
        if sample is not None:
            yield sample

    def _text(self, header: Header) -> bytes:
        """The content of a text member; call it before the next header is read, while the window holds it."""
        _, offset, size, plain = header
        if not plain or offset + size > self._size:
            return b""
        return self._window.read(offset, size if size < AltText.MAX_BYTES else AltText.MAX_BYTES)

    def _stamp(self, header: Header) -> str:
        """A checksum of an image; call it as `_text`.

        Of an image of more than 3 STAMPED bytes, only the first, the middle and the last STAMPED bytes are in it, since
        the content of large members is skipped, and the time in its header, by which a tar that was written anew is
        told apart.
        """
        _, offset, size, _ = header
        if size <= 3 * STAMPED:
            return f"{zlib.crc32(self._window.read(offset, size)):08x}"
        # the header of a plain member stands before its content, whatever stands before that header
        checksum = zlib.crc32(self._window.read(offset - BLOCK, BLOCK)[_TIME])
        for start in (offset, offset + (size - STAMPED) // 2, offset + size - STAMPED):
            checksum = zlib.crc32(self._window.read(start, STAMPED), checksum)
        return f"{checksum:08x}"

    def defect(self, sample: Sample, image: Header) -> str | None:
        """The reason why a sample's image cannot be used, or None."""
        if not image.plain:
            return "the image is a link, not a file"
        if image.offset + image.size > self._size:
            return "the tar ends inside this image"
        # `cut` concerns the last member only
        if sample.cut and image is next(reversed(sample.members.values())):
            return "the tar is damaged inside this image"
        return None if image.size else "an empty file"

    def failure(self, images: int) -> str | None:
        """The reason why the tar was not read completely, or None. Call it after `samples` has ended.

        images: the number of good images, for the message.
        """
        headers, reasons = self._headers, []
        # name the first damaged range, and the number of all
        if headers.gaps:
            first, end = headers.gaps[0]
            reasons.append(f"damaged at byte {first:,}, {end - first:,} bytes skipped")
            reasons[0] += f" (the first of {len(headers.gaps):,} ranges)" if len(headers.gaps) > 1 else ""
        if headers.ending:
            reasons.append(f"{headers.ending} after {images:,} images" if headers.begun else headers.ending)
        return "; ".join(reasons) or None
