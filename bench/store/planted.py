"""A store with the parts of a job as large as one likes, of which only the metadata are on the disk.

Each part is a sparse file: its footer, by which it is found, listed and counted, is real and has the right checksum;
before it is a hole in the place of the rows. So 100 million images need less than 5 GB, and nothing can read the rows.
"""

from __future__ import annotations

import hashlib
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
from strata.store.bundles import encode_bundle
from strata.store.part_format import MARK, encode
from strata.store.part_paths import MOST_BUNDLED

SHARD_IMAGES = 10_000
FINGERPRINTS = {"index": "1" * 16, "vision": "2" * 16, "llm": "3" * 16}
_NO_IDENTITY = "feedface" * 2


class Template:
    """The bytes of a file's footer, in which only the shard's identity and the checksum change.

    path: of the file, for a shard without identity; data: all of its bytes.
    """

    def __init__(self, path: str, data: bytes) -> None:
        length = int.from_bytes(data[-8:-4], "little") + 8
        self.path, self.hole, self.footer = path, len(data) - length, data[-length:]
        self.sum_at = self.footer.index(MARK) + len(MARK)

    def write(self, store: Store, identity: str) -> None:
        """Write the file of a shard, with a hole in the place of its rows."""
        footer = bytearray(self.footer.replace(_NO_IDENTITY.encode(), identity.encode()))
        footer[self.sum_at : self.sum_at + 8] = b"0" * 8
        footer[self.sum_at : self.sum_at + 8] = b"%08x" % zlib.crc32(footer)
        path = Path(store.path(self.path.replace(_NO_IDENTITY, identity)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", buffering=0) as file:
            file.seek(self.hole)
            file.write(footer)


def _templates(chunk: int, bundled: bool) -> list[Template]:
    """Those of a shard's files: its index, and its parts or the bundles of them."""
    index = Part("index", FINGERPRINTS["index"], _NO_IDENTITY, 0, 0)
    made = [Template(index.path, encode(RECORD_SCHEMA.empty_table(), index, Footer(Counter()), "snappy"))]
    record = Record(key="0", image=ImageReference(uri="s", size=1), status=Status.SUCCEEDED)
    table, footer = records_to_table([record] * chunk), Footer(Counter({Status.SUCCEEDED.value: chunk}))
    parts = [
        index._replace(group="llm", fingerprint=FINGERPRINTS["llm"], number=n) for n in range(SHARD_IMAGES // chunk)
    ]
    if not bundled:
        return made + [Template(part.path, encode(table, part, footer, "snappy")) for part in parts]
    for start in range(0, len(parts), MOST_BUNDLED):
        bundle, data = encode_bundle([(part, table, footer) for part in parts[start : start + MOST_BUNDLED]])
        made.append(Template(bundle.path, data))
    return made


def plant(folder: Path, images: int, chunk: int, bundled: bool) -> tuple[Store, JobRequest]:
    """Make a store with one completed job of so many images, in shards of SHARD_IMAGES. bundled: its parts."""
    store, shards = Store(str(folder)), []
    templates = _templates(chunk, bundled)
    for number in range(images // SHARD_IMAGES):
        identity = hashlib.sha256(f"{number}".encode()).hexdigest()[:16]
        shards.append(ShardSummary(shard=f"/data/cc100m/{number:05d}.tar", identity=identity, images=SHARD_IMAGES))
        for template in templates:
            template.write(store, identity)
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
