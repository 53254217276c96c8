"""Hostile input for shards: patterns, tars and lists that somebody has made by hand, and mutations of them by a seed.

It imports neither pytest nor the service, because processes with limits import it too.
"""

from __future__ import annotations

import gzip
import io
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from strata.shards.image_reader import read_images
from strata.shards.parquet import rows as parquet_lists
from strata.shards.patterns import find_shards
from strata.shards.roots import SourceError
from strata.shards.sources import index_shard

BLOCK = 512


class Outcome(NamedTuple):
    """What comes of a shard. crash: an exception other than SourceError. whole: keys of images that can be read."""

    seconds: float
    rows: int = 0
    whole: tuple[str, ...] = ()
    failure: str | None = None
    crash: str | None = None


def outcome(path: Path, root: Path) -> Outcome:
    """Index a shard and read its first images; seconds of CPU of this process."""
    began = time.process_time()
    try:
        index = index_shard(str(path), [str(root)])
        rows = index.rows[:100]
        good = [row for row in rows if row.error is None]
        for image in read_images(good):
            assert isinstance(image, bytes | SourceError | OSError)
        for row in rows:
            f"{row.key}{row.alt_text}{row.error}".encode()
    except SourceError as error:
        return Outcome(time.process_time() - began, failure=str(error))
    except Exception as error:
        return Outcome(time.process_time() - began, crash=f"{type(error).__name__}: {str(error)[:300]}")
    keys = tuple(row.key for row in good)
    return Outcome(time.process_time() - began, index.table.num_rows, keys, index.failure)


def outcomes(folder: str, names: list[str]) -> dict[str, Outcome]:
    """The outcomes of shards that were written by `write_crafted`; for a process of its own."""
    # so that small files suffice
    parquet_lists.MEMORY = 128 * 2**20
    return {name: outcome(Path(folder) / name, Path(folder)) for name in names}


def write_crafted(folder: Path) -> list[str]:
    """Write all crafted tars and lists to a folder; returns their names."""
    (folder / "a.jpg").write_bytes(b"an image")
    for name, data in (*crafted_tars(), *crafted_lists()):
        (folder / name).write_bytes(data)
    return [path.name for path in sorted(folder.iterdir()) if path.name != "a.jpg"]


# tars


def header(name: bytes, size: int | bytes, kind: bytes = b"0", prefix: bytes = b"") -> bytes:
    """A header with a right checksum, whatever is in its fields. size: bytes are taken as the field itself."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(BLOCK)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = field.ljust(12, b"\0")[:12]
    block[136:148] = b"00000000000\0"
    block[156:157], block[257:265], block[345:500] = kind, b"ustar\00000", prefix[:155].ljust(155, b"\0")
    return checked(block)


def checked(block: bytes | bytearray) -> bytes:
    """A header with the checksum of its bytes."""
    made = bytearray(block)
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % (sum(made) % 2**18)
    return bytes(made)


def member(name: bytes, data: bytes, kind: bytes = b"0", size: int | bytes | None = None) -> bytes:
    """A header and its content. size: what the header says instead of the content's."""
    return header(name, len(data) if size is None else size, kind) + data + bytes(-len(data) % BLOCK)


def pax(records: bytes, kind: bytes = b"x", size: int | None = None) -> bytes:
    """A pax header. size: what it claims."""
    return member(b"pax", records, kind, size)


def record(key: bytes, value: bytes) -> bytes:
    """A record of a pax header."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


END = bytes(2 * BLOCK)
FIRST = member(b"first.jpg", b"one") + member(b"first.txt", b"text")
LAST = member(b"last.jpg", b"last image")
BINARY = (2**63 - 1, 2**63, 2**64 - 1, 2**87)
# a sparse header that says that its map goes on, and blocks of the map that do so without end
_SPARSE = bytearray(header(b"s.jpg", 10, b"S"))
_SPARSE[482] = 1
SPARSE = checked(_SPARSE) + (bytes(504) + b"\1" + bytes(7)) * 1000

# member's headers that are to be odd; a sample before them and one after them are not
HEADERS: dict[str, bytes] = {
    **{f"size-{size:x}": member(b"b.jpg", b"x", size=b"\x80" + size.to_bytes(11, "big")) for size in BINARY},
    "size-negative": member(b"b.jpg", b"x", size=b"\xff" * 12),
    "size-minus-huge": member(b"b.jpg", b"x", size=b"\xff\x80" + bytes(10)),
    "size-octal-max": member(b"b.jpg", b"x", size=b"7" * 12),
    "size-no-number": member(b"b.jpg", b"x", size=b"-1         x"),
    **{
        f"pax-size-{len(text)}-{text[:3].decode()}": pax(record(b"size", text)) + member(b"b.jpg", b"x")
        for text in (b"9" * 18, b"9" * 25, b"9" * 4000, b"-5", b"1e3", b"", b"0x10", "٣".encode())
    },
    "pax-4-gb": pax(b"", size=2**32) + member(b"b.jpg", b"x"),
    "pax-length-0": pax(b"0 path=a\n" * 40) + member(b"b.jpg", b"x"),
    "pax-length-huge": pax(b"9999999999 path=a\n") + member(b"b.jpg", b"x"),
    "pax-overlap": (pax(b"5 aa\n" * 2900 + b"=x\n") + member(b"b.jpg", b"x")) * 20,
    "pax-digits": (pax(b"1" * 10_240) + member(b"b.jpg", b"x")) * 50,
    "pax-chain": pax(record(b"comment", b"v")) * 10_000 + member(b"b.jpg", b"x"),
    "pax-global": b"".join(
        pax(b"".join(record(b"k%d" % (100 * i + j), b"v") for j in range(100)), b"g") + member(b"%d.jpg" % i, b"x")
        for i in range(1000)
    ),
    "pax-path-nul": pax(record(b"path", b"n\0l\nb.jpg")) + member(b"b.jpg", b"x"),
    "long-chain": member(b"long", b"name.jpg\0", b"L") * 2000 + member(b"b.jpg", b"x"),
    "long-name-1-mb": member(b"long", b"n" * 2**20 + b".jpg\0", b"L") + member(b"b.jpg", b"x"),
    "long-name-no-member": member(b"long", b"name.jpg\0", b"L"),
    "sparse-endless": SPARSE,
    "sparse-pax": pax(record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")) + member(b"b.jpg", b"x"),
    "links": header(b"b.jpg", 0, b"1") + header(b"c.jpg", 2**33 - 1, b"2") + header(b"b.jpg", 5, b"1"),
    "kinds": b"".join(header(b"%d.jpg" % kind, 0, bytes([kind])) for kind in range(256)),
    "names": b"".join(
        member(name, b"x")
        for name in (b"", b"/", b"..", b"../../a.jpg", b".jpg", b"a", b"\xff\xfe.jpg", b"\xed\xa0\x80.jpg", b"a\nb.jpg")
    ),
    "bidi": member("\u202egpj.jpg".encode(), b"x") + member("a\u2028.jpg".encode(), b"x"),
    "same-key": b"".join(header(b"b.%d.png" % i, 0) for i in range(20_000)),
    "duplicates": header(b"b.jpg", 0) * 20_000,
    "tiny": b"".join(header(b"%d.jpg" % i, 0) for i in range(20_000)),
    "json-deep": member(b"b.jpg", b"x") + member(b"b.json", b"[" * 100_000),
    "json-long": member(b"b.jpg", b"x") + member(b"b.json", b'{"caption": "' + b"c" * 2**20 + b'"}'),
    "text-nul": member(b"b.jpg", b"x") + member(b"b.txt", b"\0" * 5000),
    "ustar": b"ustar" * 400_000,
    "noise": random.Random(0).randbytes(2**20),
}


def _slow() -> bytes:
    """Headers in turn of which every second has a checksum that only old programs write: with a blank before it."""
    block = bytearray(header(b"b.jpg", 0))
    block[148:156] = b" " * 8
    block[148:156] = b" %06o\0" % sum(block)
    return (header(b"a.jpg", 0) + bytes(block)) * 5000


def crafted_tars() -> Iterator[tuple[str, bytes]]:
    """Names and contents of tars; each begins with the sample `first`."""
    for name, data in {**HEADERS, "slow": _slow()}.items():
        yield f"{name}.tar", FIRST + data + LAST + END
        yield f"{name}-cut.tar", FIRST + data[: len(data) // 2]
    yield "zip.tar", FIRST + b"PK\3\4" * 500


def mutated_tar(seed: int) -> bytes:
    """A tar made of pieces of crafted ones: members are dropped, doubled, cut, and have bytes changed, many of them in
    headers whose checksum is made right again."""
    rng, parts = random.Random(seed), [FIRST]
    for data in rng.sample([data for data in HEADERS.values() if len(data) < 100_000], rng.randint(1, 4)):
        blocks = [bytearray(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
        for _ in range(rng.randint(0, 3)):
            block = rng.choice(blocks)
            at = rng.choice((rng.randrange(len(block)), rng.randrange(124, 136), 156)) % len(block)
            block[at] = rng.choice((0, 0x20, 0x30, 0x37, 0x80, 0xFF, rng.randrange(256)))
            if block[257:262] == b"ustar" and rng.random() < 0.8:
                block[:] = checked(block)
        parts.append(b"".join(blocks))
        if rng.random() < 0.3:
            parts.append(rng.choice((LAST, END, rng.randbytes(rng.randrange(2000)), parts[-1])))
    whole = b"".join(parts)
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole + LAST + END


# lists


def crafted_lists() -> Iterator[tuple[str, bytes]]:
    """Names and contents of lists of images; a list that can be read at all names a.jpg first."""
    good = b'{"image": "a.jpg"}\n'
    lines: dict[str, bytes] = {
        "deep": b"[" * 100_000,
        "deep-objects": b'{"image":' * 50_000,
        "long-line": b'{"image": "' + b"x" * 20_000_000 + b'"}',
        "long-paths": (b'{"image": "' + b"p" * 900_000 + b'"}\n') * 30,
        "long-captions": (b'{"image": "a.jpg", "caption": "' + b"c" * 900_000 + b'"}\n') * 30,
        "long-field": b'{"image": "a.jpg", "x": "' + b"c" * 2_000_000 + b'"}\n',
        "digits": b'{"image": "a.jpg", "key": ' + b"9" * 900_000 + b"}",
        "numbers": b'{"image": "a.jpg", "key": NaN}\n{"image": 1e999}\n{"image": "a.jpg", "key": 12345678901234567890}',
        "surrogates": b'{"image": "\\ud800.jpg"}\n{"image": "a.jpg", "caption": "\\udfff", "key": "\\ud800"}',
        "nul": b'{"image": "a\\u0000.jpg"}\n' + bytes(100_000),
        "utf-16": '{"image": "a.jpg"}'.encode("utf-16"),
        "empty-lines": b"\n" * 2_000_000,
        "tiny-lines": b"1\n" * 20_000,
        "devices": b'{"image": "/dev/zero"}\n{"image": "/proc/self/environ"}\n{"image": "/dev/stdin"}',
    }
    for name, data in lines.items():
        yield f"{name}.jsonl", good + data
    # no list, and no tar: nothing unpacks them
    yield "bomb.jsonl.gz", gzip.compress(good * 500_000)
    yield "bomb.tar.gz", gzip.compress(bytes(20_000_000))
    yield "list.csv", b"image,caption\na.jpg," + b"c" * 1_000_000
    yield from crafted_parquet()


def crafted_parquet() -> Iterator[tuple[str, bytes]]:
    """Names and contents of Parquet lists; each claims, or needs, far more memory than its size."""
    # one text of 8 MB that is the value of each row
    indices = pa.array([0] * 5000, pa.int32())
    repeated = pa.DictionaryArray.from_arrays(indices, pa.array(["t" * 2**23]))
    yield "repeated.parquet", parquet(pa.table({"image": ["a.jpg"] * 5000, "caption": repeated}))
    # 160 MB in one page of some kB
    texts = pa.array(["p" * 2**20] * 160, pa.large_string())
    yield "page.parquet", parquet(pa.table({"image": texts}), use_dictionary=False, data_page_size=2**30)
    # texts that share their beginnings
    shared = pa.array(["s" * 2**20 + str(i) for i in range(50)])
    yield (
        "shared.parquet",
        parquet(pa.table({"image": shared}), use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY"),
    )
    small = parquet(pa.table({"image": ["a.jpg"] * 1234}))
    for name, count in (("rows-2-62", 2**62), ("rows-negative", -1)):
        yield f"{name}.parquet", with_rows(small, 1234, count)
    yield "footer.parquet", small[:-8] + (2**31).to_bytes(4, "little") + b"PAR1"
    yield "cut.parquet", small[: len(small) // 2]


def parquet(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", **options)
    return buffer.getvalue()


def with_rows(data: bytes, rows: int, claimed: int) -> bytes:
    """A Parquet file whose footer claims another number of rows, wherever it tells the number."""
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8].replace(_varint(rows), _varint(claimed))
    return data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def _varint(number: int) -> bytes:
    """A number of thrift's compact protocol."""
    left, made = (number << 1) ^ (number >> 63), bytearray()
    while left > 127:
        made.append(left & 127 | 128)
        left >>= 7
    return bytes((*made, left))


# patterns


def refused(patterns: list[str], roots: list[str]) -> str:
    """What comes of patterns, in one line."""
    try:
        return f"{len(find_shards(patterns, roots)):,} shards"
    except SourceError as error:
        return f"{type(error).__name__}: {error}"


def hostile_patterns(root: str) -> dict[str, tuple[str, float]]:
    """What each of some patterns gives, and the seconds of CPU that it takes; for a process of its own."""
    deep = "/*" * 40
    patterns: dict[str, list[str]] = {
        "stars": [f"{root}/*/" + "*?" * 20 + "z"],
        "many stars": [f"{root}/*/{'*a' * 1900}*b"],
        "classes": [f"{root}/*/{'[a-z]*[!b]' * 350}b"],
        "product": ["{0..99999}" * 372],
        "long names": [f"{root}/{'x' * 3000}{{0..9}}{{0..9999}}"],
        "the same list": [f"@{root}/list.txt"] * 20_000,
        "lists": [f"@{root}/lists/{i}.txt" for i in range(200)],
        "deep": [f"{root}{deep}"],
        "dots": ["{a,./}" * 16],
        "many patterns": [f"{root}/{i}.tar" for i in range(10_000)],
    }
    found = {}
    for name, texts in patterns.items():
        began = time.process_time()
        found[name] = refused(texts, [root]), time.process_time() - began
    return found
