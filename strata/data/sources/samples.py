"""Sources of samples: their interface, and the source that reads a table's images from shards and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from strata.data.sources.images_inside import place_of
from strata.data.sources.missing_files import Missing, NeededFile, missing_files
from strata.data.sources.pages import pdf_of, render_page
from strata.data.sources.tables import SampleRow, SampleTable
from strata.egress import EgressRules, RefusedAddress
from strata.errors import DataError
from strata.shards import ImageReader, ShardMissing, SourceError, read_file
from strata.store import ParquetCell, Store, is_transient, reason_of

# content: the bytes or texts of the sample; absent: its file, or the whole storage; storage: it may answer later
Cause = Literal["content", "absent", "storage"]


class SampleError(DataError, ValueError):
    """A sample cannot be read. The message is one line with the shard or file.

    key, uri: of the sample, where they are known. cause: what is wrong, as far as the storage tells.
    """

    def __init__(self, message: str, key: str = "", uri: str = "", cause: Cause = "content") -> None:
        super().__init__(message)
        self.key, self.uri, self.cause = key, uri, cause


class RawSample(NamedTuple):
    """A sample before decoding: the bytes of its image files, and its turns and system turn as in SampleRow."""

    key: str
    images: tuple[bytes, ...]
    turns: list[str]
    system: str = ""


class SampleSource(Protocol):
    """Samples by number. It is pickled to every reading process; `read` is called from several threads."""

    @property
    def identity(self) -> str:
        """Determines the samples: sources with equal identities have equal samples."""

    def __len__(self) -> int: ...

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """Read the samples with these numbers, in the order given. Raises SampleError."""

    def missing(self) -> Missing:
        """Look for all files that samples lie in."""

    def explain(self, number: int, reason: str) -> SampleError:
        """Make the error for a sample whose image cannot be decoded."""

    def problems(self) -> tuple[int, str]:
        """The number of samples that are known to be unusable, and why the first is ("" if none is)."""


class ImageFiles:
    """Reads the images of rows; checks a shard's identity before the first read from it. Thread-safe.

    store: knows the uploads, what was moved, and the identities of the shards; None: a row's identity is its shard's
    stamp, and its file lies where its URI says. rules: which web addresses may be read; None: all.
    """

    def __init__(self, store: Store | None = None, rules: EgressRules | None = None) -> None:
        self.images, self.rules = ImageReader(store), rules
        self._verified: set[tuple[str, str]] = set()

    def read(self, rows: Sequence[SampleRow]) -> list[bytes]:
        """The bytes of rows' first images, in order; images close together in a shard are read together.

        Raises SampleError if a shard or file is missing, has changed, or cannot be read.
        """
        # check each shard once per process
        for row in rows:
            if row.identity and (row.uri, row.identity) not in self._verified:
                self.verify(row.uri, row.identity, row.key)
                self._verified.add((row.uri, row.identity))
        # read in file order, which lets neighbours share a read, and restore the given order
        order = sorted(range(len(rows)), key=lambda index: (rows[index].uri, rows[index].offset))
        images = dict(zip(order, self._read([rows[index] for index in order]), strict=True))
        return [self._bytes(row, images[index]) for index, row in enumerate(rows)]

    def verify(self, uri: str, identity: str, key: str = "") -> None:
        """Raise SampleError if a shard is missing or has changed. key: of the sample that is read from it."""
        try:
            self.images.verify(uri, identity)
        except (SourceError, OSError) as error:
            raise SampleError(str(error), key, uri, _cause_of(error)) from None

    def explain(self, row: SampleRow, reason: str, cause: Cause = "content") -> SampleError:
        """Make the error for an image that cannot be read; if its shard is missing or has changed, that is why."""
        try:
            # a missing or changed shard explains the error better than the image does
            if row.identity:
                self.verify(row.uri, row.identity, row.key)
        except SampleError as error:
            return error
        return SampleError(f"{row.uri}, image {row.key}: {reason}", row.key, row.uri, cause)

    def _read(self, rows: Sequence[SampleRow]) -> list[bytes | Exception]:
        """The images of rows, in order: those of known size together, whole files of unknown size one by one."""
        try:
            images = iter(self.images.read([row for row in rows if row.size]))
            return [next(images) if row.size else self._read_file(row.uri) for row in rows]
        except OSError as error:  # the store is away, so that an upload could not be found
            return [error] * len(rows)

    def _read_file(self, uri: str) -> bytes | Exception:
        try:
            page = pdf_of(uri)
            if page:
                return render_page(read_file(self.images.locate(page[0]), self.rules), page[1])
            return read_file(self.images.locate(uri), self.rules)
        except Exception as error:  # each storage has its own exceptions
            return error

    def _bytes(self, row: SampleRow, image: bytes | Exception) -> bytes:
        if isinstance(image, bytes):
            return image
        raise self.explain(row, reason_of(image), _cause_of(image))


@dataclass
class TableSource:
    """The samples of a table, with their images read by offset from tars and files.

    markup: the control tokens that the source itself writes into answers; all others are removed from them. uri: of the
    file that lists the samples, "" for none.
    """

    identity: str
    table: SampleTable
    files: ImageFiles = field(default_factory=ImageFiles)
    markup: tuple[str, ...] = ()
    uri: str = ""

    def __len__(self) -> int:
        return len(self.table)

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """Read the samples with these numbers, in the order given. Raises SampleError as ImageFiles does."""
        rows = self.table.rows(numbers)
        # an entry of a file that is no sample was kept as a row with the reason
        bad = next((row for row in rows if row.problem), None)
        if bad:
            line = f"{self.uri}: {bad.problem}" if self.uri else bad.problem
            raise SampleError(line, key=bad.key, uri=self.uri)
        # one row for each image: the first of each sample, and further ones
        wanted = [image for row in rows for image in _image_rows(row)]
        images = iter(self.files.read(wanted))
        return [
            RawSample(row.key, tuple(next(images) for _ in _image_rows(row)), row.turns, row.system) for row in rows
        ]

    def problems(self) -> tuple[int, str]:
        """The number of rows that cannot be used, and why the first cannot."""
        return self.table.problems()

    def missing(self) -> Missing:
        """Check all shards and files."""
        changed: list[str] = []
        files: list[NeededFile] = []
        # shards are checked by their identity; single image files are looked for
        for uri, identity, key in self.table.files():
            if identity:
                try:
                    self.files.verify(uri, identity)
                except SampleError as error:
                    changed.append(str(error))
            else:
                cell, page = ParquetCell.find(uri), pdf_of(uri)
                file = cell.file if cell else page[0] if page else place_of(uri)[0]
                files.append(NeededFile(uri, self.files.images.locate(file), key))
        found = missing_files(files, self.files.rules)
        return Missing(changed + found.lines, found.not_asked)

    def explain(self, number: int, reason: str) -> SampleError:
        """Make the error for a sample whose image cannot be decoded."""
        return self.files.explain(self.table.rows([number])[0], reason)


def _cause_of(error: Exception) -> Cause:
    if is_transient(error):
        return "storage"
    if isinstance(error, RefusedAddress):
        return "content"
    return "content" if isinstance(error, SourceError) and not isinstance(error, ShardMissing) else "absent"


def _image_rows(row: SampleRow) -> list[SampleRow]:
    """A row for each image of a sample; none for a sample of text only."""
    first = [row] if row.uri else []
    more = (place_of(uri) for uri in row.more)
    return first + [row._replace(uri=uri, offset=offset, size=size, identity="") for uri, offset, size in more]
