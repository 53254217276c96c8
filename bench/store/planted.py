"""A store with the parts of a job as large as one likes, of which only the metadata are on the disk.

Each part is a sparse file: its footer, by which it is found, listed and counted, is real and has the right checksum;
before it is a hole in the place of the rows. So 100 million images need less than 4 GB, and nothing can read the rows.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from strata.core import (
    RECORD_SCHEMA,
    ImageReference,
    JobEnd,
    JobRequest,
    Record,
    ShardSummaries,
    ShardSummary,
    Status,
    records_to_table,
)
from strata.jobs.envelope import envelope
from strata.jobs.new_jobs import new_job_id
from strata.store import Footer, Part, Store
from strata.store.part_format import encode

SHARD_IMAGES = 10_000
FINGERPRINTS = {"index": "1" * 16, "vision": "2" * 16, "llm": "3" * 16}
_NO_IDENTITY = "0" * 16


class Template:
    """The bytes of a part's footer, in which only the shard's identity and the checksum change."""

    def __init__(self, group: str, number: int, rows: int) -> None:
        part = Part(group, FINGERPRINTS[group], _NO_IDENTITY, number, 0)
        record = Record(key="0", image=ImageReference(uri="s", size=1), status=Status.SUCCEEDED)
        table = records_to_table([record] * rows) if group != "index" else RECORD_SCHEMA.empty_table()
        data = encode(table, part, Footer(Counter({Status.SUCCEEDED.value: rows})), "snappy")
        self.part, length = part, int.from_bytes(data[-8:-4], "little") + 8
        self.hole, self.footer = len(data) - length, bytearray(data[-length:])
        self.name_at = self.footer.index(_NO_IDENTITY.encode())
        self.sum_at = self.footer.index(b"strata-crc32:") + len(b"strata-crc32:")
        self.footer[self.sum_at : self.sum_at + 8] = b"0" * 8

    def write(self, folder: str, identity: str) -> None:
        """Write the part of a shard, with a hole in the place of its rows."""
        footer = bytearray(self.footer)
        footer[self.name_at : self.name_at + 16] = identity.encode()
        footer[self.sum_at : self.sum_at + 8] = b"%08x" % zlib.crc32(footer)
        file = os.open(f"{folder}/{self.part.name}", os.O_CREAT | os.O_WRONLY)
        os.pwrite(file, footer, self.hole)
        os.close(file)


def plant(folder: Path, images: int, chunk: int) -> tuple[Store, JobRequest]:
    """Make a store with one completed job of so many images, in shards of SHARD_IMAGES."""
    store, shards = Store(str(folder)), []
    templates = [Template("index", 0, 0)]
    templates += [Template("llm", number, chunk) for number in range(SHARD_IMAGES // chunk)]
    for number in range(images // SHARD_IMAGES):
        identity = hashlib.sha256(f"{number}".encode()).hexdigest()[:16]
        shards.append(ShardSummary(shard=f"/data/cc100m/{number:05d}.tar", identity=identity, images=SHARD_IMAGES))
        for template in templates:
            place = store.path("parts", template.part.group, template.part.fingerprint, identity)
            if template.part.number == 0:
                Path(place).mkdir(parents=True)
            template.write(place, identity)
    return store, _job(store, shards, chunk)


def _job(store: Store, shards: list[ShardSummary], chunk: int) -> JobRequest:
    request = JobRequest(
        id=new_job_id(),
        kind="batch",
        shards=[one.shard for one in shards],
        profile="planted",
        fingerprints=FINGERPRINTS,
        chunk_size=chunk,
        priority="lo",
        metadata={},
        created_at=datetime.now(UTC),
    )
    store.write_job_file(request.id, "request", request)
    store.write_job_file(request.id, "shards", ShardSummaries(shards=shards))
    images = str(SHARD_IMAGES * len(shards))
    counts = {"index:chunks": str(len(shards)), "index:images": images, "llm:images": images, "llm:succeeded": images}
    ended = envelope(request, {"status": "completed", **counts}, 0, None)
    store.write_job_file(request.id, "end", JobEnd(**dict(ended)))
    return request
