"""A thousand damaged shards: no crash, no hang, and only the damaged samples are lost."""

from __future__ import annotations

import io
import random
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from strata.images import ImageError, decode
from strata.shards.sources import SourceError, index_shard, read_images

SEEDS = 360  # mutated shards of each style
SAMPLES = 9
LONGEST = 2.0  # seconds of CPU for one shard of a few KB
STYLES = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
HOSTILE = ["../../etc/passwd", "/etc/shadow", "..\\up", "n" * 150, "d" * 90 + "/" + "e" * 60, "ünï", "a/b/./../c"]


@dataclass(frozen=True)
class Good:
    """A sample of the undamaged shard: its bytes lie at start..end of the file."""

    start: int
    end: int
    image: bytes
    text: str


@dataclass
class Broken:
    """A mutated shard; whole: samples that must come out as they were."""

    data: bytes
    whole: list[Good]
    told: bool = False  # whether headers are damaged, so that the shard must have a failure


def picture(rng: random.Random) -> bytes:
    """A small JPEG of 600 to 3,000 bytes."""
    side = rng.randrange(8, 40)
    image = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def shard(style: str) -> tuple[bytes, list[Good]]:
    """A tar of SAMPLES samples, some of whose names are hostile, and where each sample lies."""
    rng, buffer, contents = random.Random(style), io.BytesIO(), []
    names = [f"{i:09d}" for i in range(SAMPLES)]
    for index, name in zip(rng.sample(range(SAMPLES), 5), rng.sample(HOSTILE, 5), strict=True):
        names[index] = name if style != "ustar" or (name.isascii() and len(name) < 100) else names[index]
    with tarfile.open(fileobj=buffer, mode="w", format=STYLES[style]) as tar:
        for number, name in enumerate(names):
            image, text = picture(rng), f"text {number}"
            for extension, data in (("jpg", image), ("json", b'{"caption": "no"}'), ("txt", text.encode())):
                member = tarfile.TarInfo(f"{name}.{extension}")
                member.size, member.mtime = len(data), 1e9 + (0.25 if style == "pax" else 0)
                tar.addfile(member, io.BytesIO(data))
            contents.append((image, text))
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as tar:
        starts = [member.offset for member in tar.getmembers()][::3]
        ends = [*starts[1:], tar.offset]
    return buffer.getvalue(), [Good(*index) for index in zip(starts, ends, *zip(*contents, strict=True), strict=True)]


def untouched(good: list[Good], first: int, end: int) -> list[Good]:
    """The samples that end before byte `first` or begin at or after byte `end`."""
    return [sample for sample in good if sample.end <= first or sample.start >= end]


def truncated(data: bytes, good: list[Good], rng: random.Random) -> Broken:
    cut = rng.randrange(len(data))
    return Broken(data[:cut], untouched(good, cut, len(data)), told=cut < good[-1].end)


def flipped(data: bytes, good: list[Good], rng: random.Random) -> Broken:
    """Flip one bit of a header or of a content, in up to three samples."""
    broken, whole = bytearray(data), good
    for sample in rng.sample(good, rng.randint(1, 3)):
        bit = 8 * (sample.start + rng.randrange(512 if rng.random() < 0.5 else sample.end - sample.start))
        broken[bit // 8] ^= 1 << rng.randrange(8)
        whole = [other for other in whole if other is not sample]
    return Broken(bytes(broken), whole)


def overwritten(data: bytes, good: list[Good], rng: random.Random) -> Broken:
    """Overwrite a range with zeros, ones or noise; it may include headers."""
    first = rng.randrange(good[-1].end)
    end = min(first + rng.randrange(1, 5000), len(data))
    kind = rng.choice((bytes, lambda size: b"\xff" * size, rng.randbytes))
    return Broken(data[:first] + kind(end - first) + data[end:], untouched(good, first, end))


def destroyed_header(data: bytes, good: list[Good], rng: random.Random) -> Broken:
    sample = rng.choice(good)
    broken = data[: sample.start] + rng.choice((bytes(512), rng.randbytes(512))) + data[sample.start + 512 :]
    return Broken(broken, untouched(good, sample.start, sample.end), told=True)


def removed(data: bytes, good: list[Good], rng: random.Random) -> Broken:
    """Remove a range, often of whole blocks."""
    first = rng.randrange(good[-1].end)
    end = first + rng.choice((512 * rng.randrange(1, 6), rng.randrange(1, 3000)))
    whole = untouched(good, first, end)
    return Broken(data[:first] + data[end:], whole if (end - first) % 512 else but_the_next(whole, first))


def but_the_next(whole: list[Good], index: int) -> list[Good]:
    """Leave out the sample after a position where blocks were removed or added: by chance the member there may
    seem to end where another header stands, which no reader can detect."""
    later = [sample for sample in whole if sample.start >= index]
    return [sample for sample in whole if sample not in later[:1]]


def inserted(data: bytes, good: list[Good], rng: random.Random) -> Broken:
    """Insert noise, zeros or blocks of the shard itself."""
    index = rng.choice((rng.choice(good).start, rng.randrange(good[-1].end)))
    first = rng.randrange(len(data))
    size = rng.randrange(1, 4000)
    blocks = data[first - first % 512 :][: 512 * rng.randrange(1, 9)]
    extra = rng.choice((rng.randbytes(size), bytes(size), blocks))
    whole = untouched(good, index, index)
    return Broken(data[:index] + extra + data[index:], but_the_next(whole, index) if extra is blocks else whole)


def swapped(data: bytes, good: list[Good], rng: random.Random) -> Broken:
    """Exchange two samples, or the images of two samples."""
    one, other = sorted(rng.sample(good, 2), key=lambda sample: sample.start)
    if rng.random() < 0.5:
        parts = data[: one.start], data[other.start : other.end], data[one.end : other.start]
        return Broken(b"".join(parts) + data[one.start : one.end] + data[other.end :], good)
    ends = [data.index(sample.image, sample.start) + len(sample.image) for sample in (one, other)]
    first, second = (end + -end % 512 for end in ends)
    images = data[one.start : first], data[other.start : second]
    whole = [sample for sample in good if sample not in (one, other)]
    return Broken(data[: one.start] + images[1] + data[first : other.start] + images[0] + data[second:], whole)


MUTATIONS = (truncated, flipped, overwritten, destroyed_header, removed, inserted, swapped)


@pytest.mark.parametrize("style", STYLES)
def test_broken_shards(tmp_path: Path, style: str) -> None:
    data, good = shard(style)
    path = tmp_path / "0.tar"
    check(path, Broken(data, good))
    for seed in range(SEEDS):
        rng = random.Random(f"{style} {seed}")
        mutate = rng.choice(MUTATIONS)
        try:
            check(path, mutate(data, good, rng))
        except AssertionError as error:
            raise AssertionError(f"{mutate.__name__}, seed {seed} of {style}") from error


def check(path: Path, broken: Broken) -> None:
    """Index, read and decode a shard: its undamaged samples must come out, without an exception and in time."""
    path.write_bytes(broken.data)
    started = time.process_time()
    index = index_shard(str(path))
    found = set()
    for row, data in zip(index.rows, read_images(index.rows), strict=True):
        if isinstance(data, Exception):
            assert isinstance(data, SourceError | OSError) and row.error
            continue
        assert row.error or (row.offset > 0 and row.offset + row.size <= len(broken.data))
        found.add((data, row.alt_text))
        try:
            decode(data, 10_000)
        except ImageError as error:
            assert error.kind
    assert time.process_time() - started < LONGEST
    lost = [sample.text for sample in broken.whole if (sample.image, sample.text) not in found]
    assert not lost, (lost, index.failure)
    assert index.failure or not broken.told
