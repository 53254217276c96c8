"""Make the rows of a tar's index, in one pass over its headers."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

from strata.counts import counted
from strata.shards import captions
from strata.shards.keys import Keys
from strata.shards.kinds import IMAGE_EXTENSIONS, MAGIC_BYTES, extension_of, is_hidden, is_image
from strata.shards.tar.headers import Header, Headers, Window
from strata.shards.tar.members import BLOCK
from strata.shards.tar.samples import MAX_MEMBERS, SMALL, Found, LooseTexts, Sample, is_text, stem_of
from strata.store import IndexRow

STAMPED = 128 * 2**10  # bytes in each of three places of a large image that its stamp is made from
_TIME = slice(136, 148)  # of a header: the member's modification time


class TarReader:
    """Reads a tar of `size` bytes once, forward.

    After `rows` has ended, `left_out` counts the members that are in none of them, by the reason.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._size = size
        self._window = Window(file, size)
        self._headers = Headers(self._window, size)
        self._loose = LooseTexts()
        self.left_out: Counter[str] = Counter()

    def rows(self) -> Iterator[IndexRow]:
        """Yield a row for each image, in file order, with the text that stands in its sample or before it.

        `with_texts` adds those that come later.
        """
        keys, number = Keys(), 0
        for sample in self.samples():
            images = list(sample.images())
            for found in images:
                text, note = found.caption
                if text is None:
                    text, late = self._loose.of(number, found.stem, sample.prefix)
                    note = late or note
                header, key = found.header, keys.distinct(Keys.clean(found.key))
                defect = self._defect(sample, found)
                yield IndexRow(key, "", header.offset, header.size, text, defect, found.stamp, note)
                number += 1
            for loose in sample.texts(images):
                self._loose.keep(loose)
            # most samples have one image, and no texts but KEY.txt and KEY.json
            if not (len(images) == len(sample.stamps) == 1) or any(sample.txt) or any(sample.json):
                self.left_out += sample.left_out(images)

    def with_texts(self, table: pa.Table) -> pa.Table:
        """The table of the rows, with the texts that came after their images, whose numbers `left_out` then has."""
        filled = self._loose.filled(table)
        self.left_out += Counter(text_without_image=self._loose.unused, text_too_many=self._loose.refused)
        return filled

    def samples(self) -> Iterator[Sample]:
        """Yield samples in file order."""
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
            if self._passed_over(header, key, extension):
                continue
            # another key, or an extension that the sample has already, begins the next sample
            prefix, extension = f"{folder}/{key}" if folder else key, extension.lower()
            full = sample is not None and len(sample.members) >= MAX_MEMBERS
            if sample is None or sample.prefix != prefix or full or extension in sample.members:
                if sample is not None:
                    yield sample
                sample = Sample(prefix, key, split=full and sample is not None and sample.prefix == prefix)
            sample.members[extension] = header
            end = offset + size if plain else 0
            self._read(sample, extension, header)
        if sample is not None:
            yield sample

    def _passed_over(self, header: Header, key: str, extension: str) -> bool:
        """Whether a member belongs to no sample: it is hidden, or has no extension and is no image."""
        reason = "hidden" if is_hidden(header.name) else ""
        if not reason and not (key and extension) and not self._begins_as_image(header):
            reason = "no_image"
        if reason:
            self.left_out[reason] += 1
        return bool(reason)

    def _read(self, sample: Sample, extension: str, header: Header) -> None:
        """Read texts and some bytes of images into a sample now, while they are in the window."""
        last = extension_of(f".{extension}")
        if last in IMAGE_EXTENSIONS or (not is_text(last) and self._begins_as_image(header)):
            whole = header.plain and header.offset + header.size <= self._size
            sample.stamps[extension] = self._stamp(header) if whole else None
        elif last == "txt":
            sample.txt[stem_of(extension)] = captions.from_txt(self._text(header, captions.MAX_TEXT))
        elif last == "json":
            stem = stem_of(extension)
            if stem in sample.txt and sample.txt[stem].text:  # it has priority
                return
            data = self._text(header, captions.MAX_JSON)
            sample.json[stem] = data if len(data) <= SMALL else captions.from_json(data)

    def _begins_as_image(self, header: Header) -> bool:
        return header.plain and is_image(self._window.read(header.offset, min(header.size, MAGIC_BYTES)))

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

    def _defect(self, sample: Sample, found: Found) -> str | None:
        """The reason why an image of a sample cannot be used, or None."""
        image = found.header
        if not image.plain:
            return "the image is a link, not a file"
        if image.offset + image.size > self._size:
            return "the tar ends inside this image"
        # `cut` concerns the last member only
        if sample.cut and image is next(reversed(sample.members.values())):
            return "the tar is damaged inside this image"
        return None if image.size else "an empty file"

    def failure(self, images: int) -> str | None:
        """The reason why the tar was not read completely, or None. Call it after `rows` has ended.

        images: the number of good images, for the message.
        """
        headers, reasons = self._headers, []
        # name the first damaged range, and the number of all
        if headers.gaps:
            first, end = headers.gaps[0]
            reasons.append(f"damaged at byte {first:,}, {counted(end - first, 'byte')} skipped")
            reasons[0] += f" (the first of {len(headers.gaps):,} ranges)" if len(headers.gaps) > 1 else ""
        if headers.ending:
            reasons.append(f"{headers.ending} after {counted(images, 'image')}" if headers.begun else headers.ending)
        if not reasons and not images and self.left_out:
            reasons.append("a tar without images")
        return "; ".join(reasons) or None
