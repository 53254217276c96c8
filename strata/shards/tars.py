"""Group the members of a webdataset tar into samples, in one pass over its headers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from strata.shards import captions
from strata.shards.captions import Caption
from strata.shards.keys import Keys
from strata.shards.kinds import IMAGE_EXTENSIONS
from strata.shards.members import BLOCK
from strata.shards.tar_headers import Header, Headers, Window

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

    def caption(self) -> Caption:
        """The text of the .txt member, else the caption in the .json member."""
        found = captions.from_txt(self.txt)
        return captions.from_json(self.json) if found.text is None and self.json else found


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
                sample.txt = self._text(header, captions.MAX_TEXT)
            elif extension == "json" and not sample.txt:  # a text has priority
                sample.json = self._text(header, captions.MAX_JSON)
        if sample is not None:
            yield sample

    def _text(self, header: Header, most: int) -> bytes:
        """The first `most` + 1 bytes of a text; call it before the next header is read, while the window holds it."""
        _, offset, size, plain = header
        if not plain or offset + size > self._size:
            return b""
        return self._window.read(offset, min(size, most + 1))

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
