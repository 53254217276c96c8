"""Damaged shards from a seed: tars of small JPEGs, and which of their samples must come out whole."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

SAMPLES = 9
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


def damaged_shards(seed: int, count: int) -> Iterator[tuple[str, Broken]]:
    """So many damaged shards of all styles, each with what was done to it."""
    rng = random.Random(seed)
    bases = {style: shard(style) for style in STYLES}
    for number in range(count):
        style, mutate = rng.choice(list(STYLES)), rng.choice(MUTATIONS)
        yield f"{number}: {style}, {mutate.__name__}", mutate(*bases[style], rng)


def crafted_shards() -> Iterator[tuple[str, Broken]]:
    """Shards with one member that no writer makes, between samples that must come out whole."""
    data, good = shard("ustar")
    at = good[SAMPLES // 2].start
    for name, member in crafted_members().items():
        # a reader cannot tell a member of an unknown size from the one after it, so that is not asked for
        whole = [sample for sample in good if sample is not good[SAMPLES // 2]]
        yield name, Broken(data[:at] + member + data[at:], whole)


def crafted_members() -> dict[str, bytes]:
    """Headers of tars, with what follows them, that lie about their sizes, names or kinds."""
    members = {
        f"size 2**{bits}": header("a.jpg", b"\x80" + (2**bits).to_bytes(11, "big")) for bits in (62, 63, 64, 80, 87)
    }
    members |= {
        "negative size": header("a.jpg", b"\xff" * 12),
        "size of minus signs": header("a.jpg", b"-0000000001\0"),
        "size of no digits": header("a.jpg", b"not a size\0\0"),
        "size of 8 GiB": header("a.jpg", b"77777777777\0"),
        "pax size": pax("size", str(2**70)) + header("a.jpg", b"00000000000\0"),
        "pax size of letters": pax("size", "x" * 50) + header("a.jpg", b"00000000000\0"),
        "pax of 1 GiB": header("././@PaxHeader", b"10000000000\0", b"x"),
        "pax length": _padded(b"99999999999999999999 path=a.jpg\n", b"x") + header("a.jpg", b"00000000000\0"),
        "pax without end": _padded(b"20 path=" + b"a" * 4000, b"x") + header("a.jpg", b"00000000000\0"),
        "pax name": pax("path", "n" * 200_000) + header("a.jpg", b"00000000000\0"),
        "pax name with zero": pax("path", "a\0b.jpg") + header("a.jpg", b"00000000000\0"),
        "GNU long name of long names": _padded(b"b" * 600, b"L") * 300 + header("a.jpg", b"00000000000\0"),
        "GNU sparse": header("a.jpg", b"00000001000\0", b"S") + bytes(512),
        "link": header("a.jpg", b"00000000000\0", b"2", b"/etc/passwd"),
        "hard link": header("a.jpg", b"00000000000\0", b"1", b"../../etc/passwd"),
        "device": header("a.jpg", b"00000000000\0", b"3"),
        "pipe": header("a.jpg", b"00000000000\0", b"6"),
        "unknown kind": header("a.jpg", b"00000000000\0", b"\xf7"),
        "9,000 empty members": b"".join(header(f"{n}.jpg", b"00000000000\0") for n in range(9_000)),
        "zeros": bytes(512 * 3),
    }
    return members


def header(name: str, size: bytes, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """The 512 bytes of a header with a right checksum. size: its 12 bytes."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:136] = b"0000644\0" + b"0000000\0" * 2 + size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(key: str, value: str) -> bytes:
    """An extended header with one record."""
    body = f" {key}={value}\n".encode()
    length = len(body)
    while len(f"{length}") + len(body) != length:
        length = len(f"{length}") + len(body)
    return _padded(f"{length}".encode() + body, b"x")


def sample(name: str) -> bytes:
    """The bytes of an image with its name as its text, as they are in a tar."""
    text, image = name.encode(), picture(random.Random(name))
    pieces = ((".txt", text), (".jpg", image))
    return b"".join(header(name + end, b"%011o\0" % len(data)) + data + bytes(-len(data) % 512) for end, data in pieces)


def _padded(body: bytes, kind: bytes) -> bytes:
    return header("././@LongLink", b"%011o\0" % len(body), kind) + body + bytes(-len(body) % 512)
