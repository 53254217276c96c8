"""Shards with the images inside: tars for webdataset, and MDS files for MosaicML Streaming."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any

from strata.data.exports.names import NameTable
from strata.data.exports.samples import ExportSample, Target, files
from strata.data.exports.tables import table_row

MDS_BYTES = 1 << 26  # of a shard of MDS, as in the package's own writer
# the columns of MDS and their encodings, sorted by name as its writer does
MDS_COLUMNS = {
    "boxes": "json",
    "height": "int",
    "image": "jpeg",
    "instruction": "str",
    "key": "str",
    "text": "str",
    "width": "int",
}
_FIXED = {"int": 8}  # bytes of encodings that have always as many


def write_webdataset(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write tars of KEY.jpg, KEY.txt and KEY.json, with the keys of the source; long keys have pax headers."""
    table = NameTable(target.folder)
    for number, named in files(samples):
        file = f"{number:05d}.tar"
        with tarfile.open(target.folder / file, "w", format=tarfile.PAX_FORMAT) as tar, table:
            for sample in named:
                table.note(sample.key, sample.name, f"{file}/{sample.name}.jpg")
                note = json.dumps(_without_image(sample))
                for extension, data in (("jpg", sample.jpeg), ("txt", sample.text.encode()), ("json", note.encode())):
                    member = tarfile.TarInfo(f"{sample.name}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _without_image(sample: ExportSample) -> dict[str, Any]:
    """A sample's row of the tables without its image; an entry has a mask only if its layer has masks."""
    row = {name: value for name, value in table_row(sample).items() if name != "image"}
    row["boxes"] = [{name: value for name, value in box.items() if value is not None} for box in row["boxes"]]
    return row


def write_mds(target: Target, samples: Iterator[ExportSample]) -> None:
    """Write `index.json` and shards of MDS for `streaming.StreamingDataset(local=DIR)`.

    The format of mosaicml/streaming, streaming/base/format/mds/writer.py, version 2. The package itself is not needed:
    it allows no numpy that this environment has.
    """
    shards: list[dict[str, Any]] = []
    held: list[bytes] = []
    size = 0
    for sample in samples:
        data = _mds_sample({**_without_image(sample), "image": sample.jpeg, "instruction": target.instruction})
        # a shard ends before it becomes too large
        if held and size + len(data) > MDS_BYTES:
            shards.append(_write_mds_shard(target, len(shards), held))
            held, size = [], 0
        held.append(data)
        size += len(data) + 4
    if held:
        shards.append(_write_mds_shard(target, len(shards), held))
    index = json.dumps({"version": 2, "shards": shards}, sort_keys=True)
    (target.folder / "index.json").write_text(index, encoding="utf-8")


def _mds_sample(row: dict[str, Any]) -> bytes:
    """A row: the lengths of the columns whose length differs, then the values."""
    values = {name: _mds_value(encoding, row[name]) for name, encoding in MDS_COLUMNS.items()}
    lengths = [len(values[name]) for name, encoding in MDS_COLUMNS.items() if encoding not in _FIXED]
    return struct.pack(f"<{len(lengths)}I", *lengths) + b"".join(values.values())


def _mds_value(encoding: str, value: Any) -> bytes:
    if encoding == "int":
        return struct.pack("<q", value)
    if encoding == "jpeg":
        return bytes(value)
    text: str = value if encoding == "str" else json.dumps(value, ensure_ascii=False)
    return text.encode()


def _write_mds_shard(target: Target, number: int, held: Sequence[bytes]) -> dict[str, Any]:
    """Write a shard: the number of samples, where each begins and the last ends, the settings, the samples."""
    settings = {
        "column_encodings": list(MDS_COLUMNS.values()),
        "column_names": list(MDS_COLUMNS),
        "column_sizes": [_FIXED.get(encoding) for encoding in MDS_COLUMNS.values()],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": MDS_BYTES,
        "version": 2,
    }
    described = json.dumps(settings, sort_keys=True).encode()
    ends = [4 + 4 * (len(held) + 1) + len(described)]
    for data in held:
        ends.append(ends[-1] + len(data))
    name = f"shard.{number:05d}.mds"
    with (target.folder / name).open("wb") as file:
        file.write(struct.pack(f"<{len(ends) + 1}I", len(held), *ends) + described)
        file.writelines(held)
    raw = {"basename": name, "bytes": ends[-1], "hashes": {}}
    return {**settings, "raw_data": raw, "samples": len(held), "zip_data": None}
