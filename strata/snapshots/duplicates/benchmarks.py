"""The hashes of pictures of benchmarks, as a Parquet file that a user makes of a folder: training must not see them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from strata.errors import InvalidInput
from strata.files import writing
from strata.images import THUMBNAIL_BYTES
from strata.snapshots.duplicates.arrays import RowArray
from strata.snapshots.duplicates.pictures import PictureHashes

_VERSION = b"strata.benchmark_hashes"
_WAY = b"strata.embedding"  # how the embeddings were computed
_NOW = b"2"
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("sha256", pa.string()),
        ("pixels", pa.binary()),
        ("pdq", pa.binary(32)),
        ("mirrored", pa.binary(32)),
        ("quality", pa.int32()),
        ("thumbnail", pa.binary(THUMBNAIL_BYTES)),
        ("embedding", pa.list_(pa.float16())),
    ]
)


@dataclass(frozen=True)
class Benchmarks:
    """names: of the pictures, in the order of the hashes. way: how the embeddings were computed, "" for none."""

    names: Sequence[str]
    hashes: PictureHashes
    way: str = ""


def write_benchmarks(path: Path, benchmarks: Benchmarks) -> None:
    """Write the hashes to a file, complete or not at all. Raises OSError."""
    hashes = benchmarks.hashes
    assert hashes.pixels is not None and hashes.mirrored is not None and hashes.thumbnails is not None
    vectors = [None] * len(benchmarks.names) if hashes.vectors is None else list(hashes.vectors[:].astype(np.float16))
    table = pa.table(
        {
            "name": list(benchmarks.names),
            "sha256": hashes.sha256,
            "pixels": list(hashes.pixels),
            "pdq": [row.tobytes() for row in hashes.pdq],
            "mirrored": [row.tobytes() for row in hashes.mirrored],
            "quality": hashes.quality.astype(np.int32),
            "thumbnail": [row.tobytes() for row in hashes.thumbnails[:]],
            "embedding": vectors,
        },
        schema=_SCHEMA.with_metadata({_VERSION: _NOW, _WAY: benchmarks.way.encode()}),
    )
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with writing(path):
            pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_benchmarks(path: Path, content: bytes) -> Benchmarks:
    """The hashes of a file's bytes. path: for the messages. Raises InvalidInput."""
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path}: {str(error).splitlines()[0]}") from None
    metadata = table.schema.metadata or {}
    if metadata.get(_VERSION) != _NOW or not table.schema.remove_metadata().equals(_SCHEMA):
        raise InvalidInput(f"{path}: it is no file of hashes that `strata snapshot hashes` of this version has written")
    if not table.num_rows:
        raise InvalidInput(f"{path}: it has no picture")
    way = metadata.get(_WAY, b"").decode()
    hashes = PictureHashes(
        table.column("sha256").to_pylist(),
        bits_of(table.column("pdq")),
        table.column("quality").to_numpy().astype(np.int64),
        pixels=table.column("pixels").to_pylist(),
        mirrored=bits_of(table.column("mirrored")),
        thumbnails=RowArray(bytes_of(table.column("thumbnail"), THUMBNAIL_BYTES)),
        vectors=RowArray(vectors_of(table.column("embedding"))) if way else None,
    )
    return Benchmarks(table.column("name").to_pylist(), hashes, way)


def bits_of(column: pa.ChunkedArray) -> np.typing.NDArray[np.uint16]:
    """A column of PDQ hashes as (rows, 16)."""
    return bytes_of(column, 32).view(np.dtype("<u2"))


def bytes_of(column: pa.ChunkedArray, size: int) -> np.typing.NDArray[np.uint8]:
    """A column of values of `size` bytes, none of which is null, as (rows, size)."""
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, size)


def vectors_of(column: pa.ChunkedArray) -> np.typing.NDArray[np.float16]:
    """A column of vectors as (rows, width): zeros for a row without one. Raises InvalidInput for unequal widths."""
    whole = column.combine_chunks()
    lengths = whole.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    width = int(lengths.max()) if len(lengths) else 0
    if set(np.unique(lengths).tolist()) - {0, width}:
        raise InvalidInput("the embeddings have different lengths: they are those of different models")
    found = np.zeros((len(lengths), width), np.float16)
    found[lengths > 0] = whole.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width or 1)
    return found
