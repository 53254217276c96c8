"""Hashes of the pictures of rows, for selections that take each picture once. Each picture is read once, and cached."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
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
from strata.images import ImageError, decode
from strata.shards import ImageReader
from strata.snapshots import PictureHashes
from strata.store import Part, Store

SIDE = 512  # pixels of a side; PDQ's authors hash pictures of this size
MAX_PIXELS = 100_000_000
READ_TOGETHER = 16  # images of a part
_VERSION = 1  # of the cached files
_SCHEMA = pa.schema([("row", pa.int32()), ("sha256", pa.string()), ("pdq", pa.binary(32)), ("quality", pa.int32())])


class PictureHasher:
    """Hashes the pictures of parts' rows. near: whether PDQ hashes are needed, which takes decoding each image.

    Files in `cache` keep the hashes of each part. Raises InvalidInput if pdqhash is not installed.
    """

    def __init__(self, store: Store, near: bool, cache: Path | None = None) -> None:
        self._store, self._near, self._reader = store, near, ImageReader(store)
        self._cache = cache or default_cache().with_name("pictures")
        if near:
            try:
                import pdqhash  # noqa: F401
            except ImportError:
                raise InvalidInput("pictures that look alike need pdqhash: pip install 'strata[training]'") from None

    def hashes(
        self, parts: Sequence[str], rows: pa.Table, advance: Callable[[int], object] = lambda rows: None
    ) -> PictureHashes:
        """The hashes of rows (columns part and row, sorted), in order. advance: gets numbers of rows. Raises OSError.

        A picture that cannot be read is identified by its file, offset and size, and looks like no other.
        """
        numbers, starts = np.unique(rows.column("part").to_numpy(), return_index=True)
        held = np.split(rows.column("row").to_numpy(), starts[1:]) if len(numbers) else []

        def of_part(number: int, wanted: Any) -> pa.Table:
            table = self._of_part(parts[number], wanted)
            advance(len(wanted))
            return table

        # decoding releases the interpreter's lock
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            tables = list(pool.map(of_part, numbers.tolist(), held))
        whole = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
        pdq = np.frombuffer(b"".join(whole.column("pdq").to_pylist()), np.dtype("<u2")).reshape(-1, 16)
        quality = whole.column("quality").to_numpy().astype(np.int64)
        return PictureHashes(
            whole.column("sha256").to_pylist(), pdq, np.maximum(quality, 0), int((quality == -1).sum())
        )

    def _of_part(self, path: str, rows: Any) -> pa.Table:
        """The hashes of some rows of a part, those that are not in the cache computed."""
        part = Part.parse(path)
        name = hashlib.sha256(f"{_VERSION}/{self._near}/{'/'.join(map(str, part))}".encode()).hexdigest()[:32]
        file = self._cache / f"{name}.parquet"
        known = pq.read_table(file, schema=_SCHEMA) if file.is_file() else _SCHEMA.empty_table()
        missing = np.setdiff1d(rows, known.column("row").to_numpy())
        if len(missing):
            images = self._store.read_columns(path, ["image"]).column("image").take(pa.array(missing)).to_pylist()
            made = [self._of_image(row, image) for row, image in self._read(missing.tolist(), images)]
            known = pa.concat_tables([known, pa.Table.from_pylist(made, _SCHEMA)]).sort_by("row")
            # what could not be read is tried again the next time
            if (read := known.filter(pc.not_equal(known.column("quality"), -1))).num_rows:
                self._keep(file, read)
        places = np.searchsorted(known.column("row").to_numpy(), rows)
        return known.take(pa.array(places))

    def _read(self, rows: Sequence[int], images: Sequence[Any]) -> Any:
        for start in range(0, len(rows), READ_TOGETHER):
            references = [ImageReference(**image) for image in images[start : start + READ_TOGETHER]]
            read = self._reader.read(references)
            yield from zip(rows[start:], zip(references, read, strict=True), strict=False)

    def _of_image(self, row: int, image: tuple[ImageReference, bytes | Exception]) -> dict[str, Any]:
        reference, data = image
        nothing: dict[str, Any] = {"row": row, "pdq": bytes(32)}
        if isinstance(data, Exception):
            listed = reference.sha256 or f"{reference.uri} {reference.offset} {reference.size}"
            return nothing | {"sha256": listed, "quality": -1}
        digest = hashlib.sha256(data).hexdigest()
        if self._near:
            try:
                bits, quality = _pdq(data)
                return {"row": row, "sha256": digest, "pdq": bits, "quality": quality}
            except ImageError:  # its bytes count alone
                pass
        return nothing | {"sha256": digest, "quality": 0}

    def _keep(self, file: Path, table: pa.Table) -> None:
        """Write a file of the cache: complete or not at all, also if several processes do."""
        self._cache.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            pq.write_table(table, temporary)
            temporary.rename(file)
        finally:
            temporary.unlink(missing_ok=True)


def _pdq(data: bytes) -> tuple[bytes, int]:
    """The PDQ hash of an image as 32 bytes, and its quality, 0 to 100. Raises ImageError."""
    import pdqhash

    image = decode(data, MAX_PIXELS).resize((SIDE, SIDE), reducing_gap=2.0)
    bits, quality = pdqhash.compute(np.asarray(image))
    return np.packbits(np.asarray(bits, np.uint8)).tobytes(), int(quality)
