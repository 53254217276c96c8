"""Which members of a tar belong together: the samples of webdataset's convention, and texts that stand elsewhere."""

from __future__ import annotations

import functools
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from strata.shards import captions
from strata.shards.captions import Caption
from strata.shards.keys import digest_of
from strata.shards.kinds import IMAGE_EXTENSIONS, extension_of
from strata.shards.tar.headers import Header

MAX_MEMBERS = 1000  # of one sample; a longer run of one key is taken as several samples
MAX_LOOSE = 64 * 2**20  # characters of the texts that wait for their images
SMALL = 16 * 2**10  # bytes of a JSON that is kept, and only parsed if its sample has no text
KEPT = 1024  # extensions whose meaning is remembered: a tar has few
_NO_TEXT = Caption()


class Found(NamedTuple):
    """An image of a sample: its header, stamp and text. stem: its name without its extension; key: not yet unique."""

    key: str
    stem: str
    header: Header
    stamp: str | None
    caption: Caption


class Loose(NamedTuple):
    """A text that does not stand beside its image, the stem of its name, and whether it is that of a .txt member.

    The text is None if the member has none: a file without words, or JSON without a caption.
    """

    stem: str
    caption: Caption
    is_txt: bool


@dataclass(slots=True)
class Sample:
    """Consecutive members whose names are equal up to the first dot: that part is `prefix`, and `key` without folders.

    members: by extension (everything after the first dot, in lower case). stamps: of its images, by extension. txt,
    json: the texts, by what stands between the first and the last dot of their names, which is mostly nothing; a small
    JSON is not parsed yet. cut: the last member's content is incomplete, because the next header was found inside its
    range. split: it continues a run of MAX_MEMBERS members of one key.
    """

    prefix: str
    key: str
    split: bool = False
    members: dict[str, Header] = field(default_factory=dict)
    stamps: dict[str, str | None] = field(default_factory=dict)
    txt: dict[str, Caption] = field(default_factory=dict)
    json: dict[str, bytes | Caption] = field(default_factory=dict)
    cut: bool = False

    def images(self) -> Iterator[Found]:
        """The sample's images.

        That is KEY.jpg, whose KEY.anything.jpg are masks or thumbnails of it. If there are only such names, all are
        images: one has the sample's key, and several have what stands before their last dots.
        """
        plain = [extension for extension in self.stamps if extension in IMAGE_EXTENSIONS]
        inner = [extension for extension in self.stamps if extension_of(f".{extension}") in IMAGE_EXTENSIONS]
        several = not plain and (self.split or len(inner or self.stamps) > 1)
        for extension in plain[:1] or inner or self.stamps:
            stem = stem_of(extension)
            key = f"{self.key}.{stem}" if several and stem else self.key
            caption = self._caption(stem) if stem else Caption()
            caption = caption if caption.text else self._caption("")
            whole = f"{self.prefix}.{stem}" if stem else self.prefix
            yield Found(key, whole, self.members[extension], self.stamps[extension], caption)

    def left_out(self, images: Sequence[Found]) -> Counter[str]:
        """How many of its members are in no row, by the reason; `texts` has those that may be in another row."""
        others = sum(1 for extension in self.members if extension not in self.stamps and not is_text(extension))
        texts = sum(1 for _ in self._unused(images)) if self._complete(images) else 0
        reasons = {"no_image": 0 if images else others, "text_without_image": texts}
        return +Counter({"further_image": len(self.stamps) - len(images), **reasons})

    def texts(self, images: Sequence[Found]) -> Iterator[Loose]:
        """The texts that are of none of its images, and may be of images that stand elsewhere."""
        if not self._complete(images):
            yield from self._unused(images)

    def _complete(self, images: Sequence[Found]) -> bool:
        """Whether it has KEY.jpg: its further texts, such as KEY.jpg.txt, are those of no other image."""
        return not self.split and {found.stem for found in images} == {self.prefix}

    def _unused(self, images: Sequence[Found]) -> Iterator[Loose]:
        stems = {found.stem for found in images} | ({self.prefix} if images else set())
        for inner in dict.fromkeys([*self.txt, *self.json]):
            stem = f"{self.prefix}.{inner}" if inner else self.prefix
            if stem not in stems:
                yield Loose(stem, self._caption(inner), bool(self.txt.get(inner, _NO_TEXT).text))

    def _caption(self, inner: str) -> Caption:
        """The text of the .txt member, else the caption in the .json member."""
        found, data = self.txt.get(inner, _NO_TEXT), self.json.get(inner, b"")
        if found.text or not data:
            return found
        return captions.from_json(data) if isinstance(data, bytes) else data


@functools.lru_cache(KEPT)
def stem_of(extension: str) -> str:
    """What stands between the first and the last dot of a name, from all that follows the first one."""
    last = extension_of(f".{extension}")
    return extension.removesuffix(last).removesuffix(".") if is_text(last) or last in IMAGE_EXTENSIONS else extension


@functools.lru_cache(KEPT)
def is_text(extension: str) -> bool:
    """Whether a member with this extension may have the text of an image."""
    return extension_of(f".{extension}") in ("txt", "json")


class LooseTexts:
    """Finds the images of texts that do not stand beside them, as in a tar that is sorted by type."""

    def __init__(self) -> None:
        self._texts: dict[int, Loose] = {}  # by the digest of their stem
        self._used: set[int] = set()
        self._empty = array("Q")  # digests of the stems of texts without words
        self._size = self.refused = 0
        # of images that may get a text later: the number of the row, and the digests of their stem and of their prefix
        self._rows, self._stems, self._prefixes = array("Q"), array("Q"), array("Q")

    @property
    def unused(self) -> int:
        """How many texts have no image; several without words count once if they have one name."""
        texts = np.fromiter(self._texts, np.uint64, len(self._texts))
        known = np.concatenate([texts, np.asarray(self._stems), np.asarray(self._prefixes)])
        return len(self._texts) - len(self._used) + len(np.setdiff1d(np.asarray(self._empty), known))

    def keep(self, text: Loose) -> None:
        """Keep a text for an image that may come later, or has come."""
        digest, size = digest_of(text.stem), len(text.caption.text or "")
        if not text.caption.text:
            self._empty.append(digest)
            return
        known = self._texts.get(digest)
        # the .txt member has priority, and then the first one
        if known is not None and (known.is_txt or not text.is_txt):
            return
        if self._size + size > MAX_LOOSE:
            self.refused += 1
            return
        self._texts[digest] = text
        self._size += size

    def of(self, row: int, stem: str, prefix: str) -> Caption:
        """The text of an image, if it has come before. If it may still come, the image's row is remembered."""
        digests = digest_of(stem), digest_of(prefix)
        found = self._find(*digests)
        if found is None or not found.is_txt:
            for numbers, value in zip((self._rows, self._stems, self._prefixes), (row, *digests), strict=True):
                numbers.append(value)
        return found.caption if found else Caption()

    def _find(self, *digests: int) -> Loose | None:
        for digest in digests:
            if digest in self._texts:
                self._used.add(digest)
                return self._texts[digest]
        return None

    def filled(self, table: pa.Table) -> pa.Table:
        """A table of index rows with the texts that came after their images."""
        late: dict[int, Caption] = {}
        for row, *digests in zip(self._rows, self._stems, self._prefixes, strict=True) if self._texts else ():
            if row < table.num_rows and (found := self._find(*digests)):
                late[row] = found.caption
        if not late:
            return table
        # a batch at a time: texts as Python objects need much more memory
        batches, start = [], 0
        for batch in table.to_batches():
            rows = batch.to_pylist()
            for number, row in enumerate(rows, start):
                if number in late:
                    row["alt_text"], row["note"] = late[number]
            batches.append(pa.RecordBatch.from_pylist(rows, schema=table.schema))
            start += batch.num_rows
        return pa.Table.from_batches(batches, table.schema)
