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
from strata.snapshots.duplicates.pictures import PictureHashes

_VERSION = b"strata.benchmark_hashes"
_WAY = b"strata.embedding"  # how the embeddings were computed
_NOW = b"1"
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("sha256", pa.string()),
        ("pixels", pa.binary()),
        ("pdq", pa.binary(32)),
        ("mirrored", pa.binary(32)),
        ("windows", pa.binary(160)),
        ("quality", pa.int32()),
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
    assert hashes.pixels is not None and hashes.mirrored is not None and hashes.windows is not None
    vectors = [None] * len(benchmarks.names) if hashes.vectors is None else list(hashes.vectors.astype(np.float16))
    table = pa.table(
        {
            "name": list(benchmarks.names),
            "sha256": hashes.sha256,
            "pixels": list(hashes.pixels),
            "pdq": [row.tobytes() for row in hashes.pdq],
            "mirrored": [row.tobytes() for row in hashes.mirrored],
            "windows": [row.tobytes() for row in hashes.windows],
            "quality": hashes.quality.astype(np.int32),
            "embedding": vectors,
        },
        schema=_SCHEMA.with_metadata({_VERSION: _NOW, _WAY: benchmarks.way.encode()}),
    )
    temporary = path.with_name(f"{path.name}.tmp")
    try:
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
    pdq, mirrored, windows = (bits_of(table.column(name)) for name in ("pdq", "mirrored", "windows"))
    way = metadata.get(_WAY, b"").decode()
    hashes = PictureHashes(
        table.column("sha256").to_pylist(),
        pdq[:, 0],
        table.column("quality").to_numpy().astype(np.int64),
        pixels=table.column("pixels").to_pylist(),
        mirrored=mirrored[:, 0],
        windows=windows,
        vectors=vectors_of(table.column("embedding")) if way else None,
    )
    return Benchmarks(table.column("name").to_pylist(), hashes, way)


def bits_of(column: pa.ChunkedArray) -> np.typing.NDArray[np.uint16]:
    """A column of PDQ hashes, one or several a row, as (rows, hashes, 16)."""
    rows = column.to_pylist()
    found = np.frombuffer(b"".join(rows), np.dtype("<u2"))
    return found.reshape(len(rows), -1, 16) if rows else found.reshape(0, 1, 16)


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
