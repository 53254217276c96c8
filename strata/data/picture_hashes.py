"""Hashes of the pictures of rows, for selections that compare pictures, and of the pictures of benchmarks.

The stage `hash` of the group `features` may have computed them; else each picture is read once, and cached.
"""

from __future__ import annotations

import functools
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from strata.core import ImageReference
from strata.data.sources.tables import default_cache
from strata.errors import InvalidInput
from strata.files import open_regular, writing
from strata.images import THUMBNAIL_BYTES, ImageError, decode, picture_hash
from strata.shards import ImageReader, SourceError
from strata.shards.kinds import is_hidden
from strata.snapshots import (
    Benchmarks,
    FilledRows,
    PictureHashes,
    RowArray,
    Same,
    bits_of,
    by_part,
    bytes_of,
    vectors_of,
)
from strata.store import FeatureReader, MissingFeatures, Part, Store

MAX_PIXELS = 100_000_000
READ_TOGETHER = 16  # images of a part
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"})
_VERSION = 3  # of the cached files
_SIZES = {"pdq": 32, "mirrored": 32, "thumbnail": THUMBNAIL_BYTES}  # bytes
_SCHEMA = pa.schema(
    [
        *(("row", pa.int32()), ("sha256", pa.string()), ("pixels", pa.binary())),
        *((name, pa.binary(size)) for name, size in _SIZES.items()),
        ("quality", pa.int32()),
    ]
)
_HASHES = _SCHEMA.names[2:]  # what the stage `hash` computes
_NOTHING: dict[str, Any] = {"pixels": b"", **{name: bytes(size) for name, size in _SIZES.items()}}
_VECTOR = "embedding.list.element"


class PictureHasher:
    """Hashes the pictures of parts' rows. same: how they are compared; all but equal bytes takes decoding each image.

    Files in `cache` keep the hashes of each part. Raises InvalidInput if pdqhash is not installed.
    """

    def __init__(self, store: Store, same: Same, cache: Path | None = None) -> None:
        self._store, self._same, self._reader = store, same, ImageReader(store)
        self._decodes = same != "bytes"
        self._cache = cache or default_cache().with_name("pictures")
        if self._decodes:
            _require_pdqhash()

    def hashes(
        self,
        parts: Sequence[str],
        rows: pa.Table,
        advance: Callable[[int], object] = lambda rows: None,
        ways: Mapping[str, str] | None = None,
    ) -> PictureHashes:
        """The hashes of rows (columns part and row, sorted), in order. advance: gets numbers of rows. Raises OSError.

        A picture that cannot be read is identified by its file, offset and size, and looks like no other. ways: how the
        embeddings were computed, if there are several. Raises MissingFeatures if embeddings are compared that are not
        there.
        """
        places = list(by_part(rows))
        starts = np.cumsum([0, *(len(some) for _, some in places)]).tolist()
        features = FeatureReader(self._store, ways)
        thumbnails, vectors = (FilledRows(rows.num_rows, self._cache) for _ in range(2))

        def of_part(held: tuple[int, Any], start: int) -> pa.Table:
            path, wanted = parts[held[0]], held[1]
            table = (self._computed(path, wanted, features) if self._decodes else None) or self._of_part(path, wanted)
            if self._same in ("cropped", "embedding"):
                thumbnails.fill(start, bytes_of(table.column("thumbnail"), THUMBNAIL_BYTES))
            if self._same == "embedding":
                column = features.read(Part.parse(path), "embedding", [_VECTOR]).column("embedding")
                vectors.fill(start, vectors_of(column.take(pa.array(wanted))))
            advance(len(wanted))
            return table.drop_columns("thumbnail")

        # decoding releases the interpreter's lock
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(of_part, places, starts))
        whole = pa.concat_tables(found) if found else _SCHEMA.empty_table()
        return _hashes_of(whole, thumbnails.rows(), vectors.rows())

    def _computed(self, path: str, rows: Any, features: FeatureReader) -> pa.Table | None:
        """The hashes that the stage `hash` has computed for some rows of a part; None if it has not, or not for all.

        The hash of the pixels stands for that of the bytes: equal bytes have equal pixels.
        """
        try:
            table = features.read(Part.parse(path), "hash", _HASHES).take(pa.array(rows))
        except MissingFeatures:
            return None
        # an earlier version had no thumbnails
        if table.num_columns < len(_HASHES) or table.column("pixels").null_count:
            return None
        pixels = table.column("pixels").cast(pa.binary())
        digests = [digest.hex() for digest in pixels.to_pylist()]
        columns = {"row": pa.array(rows, pa.int32()), "sha256": digests, "pixels": pixels}
        rest = {name: table.column(name) for name in (*_SIZES, "quality")}
        return pa.table({**columns, **rest}, schema=_SCHEMA)

    def _of_part(self, path: str, rows: Any) -> pa.Table:
        """The hashes of some rows of a part, those that are not in the cache computed."""
        part = Part.parse(path)
        name = hashlib.sha256(f"{_VERSION}/{self._decodes}/{'/'.join(map(str, part))}".encode()).hexdigest()[:32]
        file = self._cache / f"{name}.parquet"
        known = pq.read_table(file, schema=_SCHEMA) if file.is_file() else _SCHEMA.empty_table()
        missing = np.setdiff1d(rows, known.column("row").to_numpy())
        if len(missing):
            images = self._store.read_columns(path, ["image"]).column("image").take(pa.array(missing)).to_pylist()
            references = [ImageReference(**image) for image in images]
            read = self._read(references, part.identity)
            made = [
                self._of_image(row, reference, data)
                for row, reference, data in zip(missing.tolist(), references, read, strict=True)
            ]
            known = pa.concat_tables([known, pa.Table.from_pylist(made, _SCHEMA)]).sort_by("row")
            # what could not be read is tried again the next time
            if (read := known.filter(pc.not_equal(known.column("quality"), -1))).num_rows:
                self._keep(file, read)
        places = np.searchsorted(known.column("row").to_numpy(), rows)
        return known.take(pa.array(places))

    def _read(self, references: Sequence[ImageReference], identity: str) -> Iterator[bytes | Exception]:
        """The bytes of images of a shard, in order, or why they cannot be read. identity: of the shard."""
        changed = self._changed(references, identity)
        for start in range(0, len(references), READ_TOGETHER):
            some = references[start : start + READ_TOGETHER]
            read = iter(self._reader.read([one for one in some if one.uri not in changed]))
            for one in some:
                yield changed[one.uri] if one.uri in changed else next(read)

    def _changed(self, references: Iterable[ImageReference], identity: str) -> dict[str, Exception]:
        """Why tars are not those that were described: other images would lie at these places."""
        found: dict[str, Exception] = {}
        for uri in dict.fromkeys(one.uri for one in references if one.offset):
            try:
                self._reader.verify(uri, identity)
            except (SourceError, OSError) as error:
                found[uri] = error
        return found

    def _of_image(self, row: int, reference: ImageReference, data: bytes | Exception) -> dict[str, Any]:
        if isinstance(data, Exception):
            listed = reference.sha256 or f"{reference.uri} {reference.offset} {reference.size}"
            return {"row": row, "sha256": listed, **_NOTHING, "quality": -1}
        return {"row": row, **_of_bytes(data, self._decodes)}

    def _keep(self, file: Path, table: pa.Table) -> None:
        """Write a file of the cache: complete or not at all, also if several processes do."""
        self._cache.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with writing(file):
                pq.write_table(table, temporary)
            temporary.rename(file)
        finally:
            temporary.unlink(missing_ok=True)


def hash_pictures(
    files: Sequence[Path], advance: Callable[[int], object] = lambda pictures: None
) -> tuple[Benchmarks, list[str]]:
    """The hashes of files of pictures, and a line for each that is none. Raises OSError, and InvalidInput without one.

    advance: gets numbers of pictures.
    """
    _require_pdqhash()

    def of_file(path: Path) -> dict[str, Any]:
        with open_regular(path) as file:
            found = _of_bytes(file.read(), True)
        advance(1)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(of_file, files))
    there = [(path, one) for path, one in zip(files, made, strict=True) if one["pixels"]]
    if not there:
        raise InvalidInput("none of these files is a picture that can be read")
    refused = [f"{path}: it cannot be decoded" for path, one in zip(files, made, strict=True) if not one["pixels"]]
    table = pa.Table.from_pylist([{"row": 0, **one} for _, one in there], _SCHEMA)
    thumbnails = RowArray(bytes_of(table.column("thumbnail"), THUMBNAIL_BYTES))
    return Benchmarks([str(path) for path, _ in there], _hashes_of(table, thumbnails)), refused


def picture_files(paths: Iterable[Path]) -> list[Path]:
    """The files of pictures among files and, by their suffixes, below folders, sorted and without hidden ones.

    Raises InvalidInput.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InvalidInput(f"{path}: there is no such file or folder")
        # links to files are read: a picture that is passed over is one that a selection may hold
        below = (one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
        shown = (one for one in below if not is_hidden(one.relative_to(path).as_posix()))
        found += sorted(shown) if path.is_dir() else [path]
    if not found:
        raise InvalidInput(f"there is no file of a picture ({', '.join(sorted(SUFFIXES))})")
    return list(dict.fromkeys(found))


def _of_bytes(data: bytes, decodes: bool) -> dict[str, Any]:
    """The hashes of a file's bytes; of one that is no picture, its bytes count alone."""
    digest = {"sha256": hashlib.sha256(data).hexdigest()}
    if decodes:
        try:
            return digest | picture_hash(decode(data, MAX_PIXELS))._asdict()
        except ImageError:
            pass
    return digest | _NOTHING | {"quality": 0}


def _hashes_of(table: pa.Table, thumbnails: RowArray | None, vectors: RowArray | None = None) -> PictureHashes:
    quality = table.column("quality").to_numpy().astype(np.int64)
    return PictureHashes(
        table.column("sha256").to_pylist(),
        bits_of(table.column("pdq")),
        np.maximum(quality, 0),
        int((quality == -1).sum()),
        table.column("pixels").to_pylist(),
        bits_of(table.column("mirrored")),
        thumbnails,
        vectors,
    )


@functools.cache
def _require_pdqhash() -> None:
    try:
        import pdqhash  # noqa: F401
    except ImportError:
        raise InvalidInput("pictures that look alike need pdqhash: pip install 'strata[curation]'") from None
