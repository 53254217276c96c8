"""Tars and lists that are made to take memory or time, or to break what reads them."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.hostile.crafted_shards import (
    END,
    FIRST,
    LAST,
    member,
    mutated_tar,
    outcome,
    outcomes,
    parquet,
    write_crafted,
)
from strata.shards import bounds, stamps
from strata.shards.keys import Keys
from strata.shards.parquet import rows as parquet_lists
from strata.shards.roots import SourceError
from strata.shards.sources import index_shard
from strata.shards.tar.headers import Headers, Window
from tests.shards.bounded import bounded

SEEDS = 200
SECONDS = 20.0  # of CPU for one shard


def test_crafted_shards_stay_within_their_bounds(tmp_path: Path) -> None:
    """Each is read, with limits of memory, to its end or to a stop with a reason; what stands before it is kept."""
    names = write_crafted(tmp_path)
    found = bounded(1024, 300, outcomes, str(tmp_path), names)
    assert set(found) == set(names)
    for name, result in found.items():
        assert result.crash is None, (name, result)
        assert result.seconds < SECONDS, (name, result)
        if name.endswith(".tar"):
            assert "first" in result.whole, (name, result)
        if name.endswith(".jsonl"):
            ended = name == "tiny-lines.jsonl"  # most of its rows name no image
            assert "a" in result.whole and (result.failure is not None) == ended, (name, result)
    # members after an odd header are found again
    for name in ("size-8000000000000000.tar", "size-negative.tar", "pax-size-25-999.tar", "pax-4-gb.tar", "links.tar"):
        assert "last" in found[name].whole, (name, found[name])
    # what cannot be read says why
    assert "memory" in (found["repeated.parquet"].failure or ""), found["repeated.parquet"]
    assert "memory" in (found["page.parquet"].failure or ""), found["page.parquet"]
    assert "damaged" in (found["footer.parquet"].failure or "") and found["rows-2-62.parquet"].rows in (0, 1234)
    assert "compressed" in (found["bomb.tar.gz"].failure or "") and found["bomb.jsonl.gz"].failure


def test_mutated_tars(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    for seed in range(SEEDS):
        data = mutated_tar(seed)
        path.write_bytes(data)
        result = outcome(path, tmp_path)
        assert result.crash is None and result.seconds < SECONDS, (seed, result)
        assert len(data) < len(FIRST) or "first" in result.whole, (seed, result)


def test_truncated_anywhere(tmp_path: Path) -> None:
    path, data = tmp_path / "0.tar", FIRST + LAST + END
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        result = outcome(path, tmp_path)
        assert result.crash is None
        assert ("first" in result.whole) == (size >= 515) and ("last" in result.whole) == (size >= 2570), (size, result)


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_read_as_the_standard_library_reads_them(style: int) -> None:
    rng, plain = random.Random(style), style == tarfile.USTAR_FORMAT
    for _ in range(150):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=style) as tar:
            for _ in range(rng.randint(1, 6)):
                names = [
                    "a",
                    "é" * rng.randrange(1, 99),
                    "d/" * rng.randrange(1, 60) + "f.jpg",
                    "x" * rng.randrange(1, 300),
                ]
                name = rng.choice([*names, "n\nl", "a.b.c"])
                info = tarfile.TarInfo(name.encode()[:90].decode("utf-8", "ignore") if plain else name)
                info.type = rng.choice([b"0"] * 6 + [b"1", b"2", b"3", b"5", b"6", b"7", b"V"])
                info.size = rng.choice([0, 1, 511, 512, 513, 2000]) if info.type in b"07V" else 0
                info.mtime, info.uid = (0, 0) if plain else (rng.choice([0, 1.5, 1e9, -5]), rng.choice([0, 3_000_000]))
                info.linkname = "l" * rng.randrange(1, 90 if plain else 200) if info.type in b"12" else ""
                if style == tarfile.PAX_FORMAT and rng.random() < 0.3:
                    info.pax_headers = {
                        rng.choice(["comment", "SCHILY.xattr.x", "path"]): rng.choice(["v", "é", "a=b\nc"])
                    }
                tar.addfile(info, io.BytesIO(bytes(info.size)))
        data = buffer.getvalue()
        with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="replace") as tar:
            expected = [(info.name, info.offset_data, info.size) for info in tar if info.isreg()]
        headers = Headers(Window(io.BytesIO(data), len(data)), len(data))
        assert [(header.name, header.offset, header.size) for header in headers if header.plain] == expected


def test_a_shard_has_so_many_images_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_ROWS", 10)
    monkeypatch.setattr(stamps, "MAX_FILES", 12)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(11):
        (folder / f"{i:02d}.jpg").write_bytes(b"x")
    (tmp_path / "0.tar").write_bytes(b"".join(member(b"%d.jpg" % i, b"x") for i in range(11)) + END)
    (tmp_path / "list.jsonl").write_text('{"image": "folder/00.jpg"}\n' * 11)
    for name in ("folder", "0.tar", "list.jsonl"):
        index = index_shard(str(tmp_path / name), [str(tmp_path)])
        assert index.failure == "more than 10 images: make several shards of it" and len(index.rows) == 10
    monkeypatch.setattr(bounds, "MAX_TEXT", 50)
    assert "more than 50 bytes" in (index_shard(str(folder)).failure or "")
    for name in ("a.txt", "b.txt"):
        (folder / name).touch()
    with pytest.raises(SourceError, match="more than 12 files"):
        index_shard(str(folder))


def test_a_list_of_nothing_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "nulls.parquet"
    pq.write_table(pa.table({"image": pa.nulls(50_000_000, pa.string())}), path)
    assert path.stat().st_size < 200_000
    told = "none of the first 10,001 rows has an image that can be read: row 10001: no path of an image"
    with pytest.raises(SourceError, match=told):
        index_shard(str(path), [str(tmp_path)])


def test_most_rows_of_a_shard_have_an_image_or_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_WITHOUT", 20)
    (tmp_path / "a.jpg").write_bytes(b"x")
    found, lost = '{"image": "a.jpg"}\n', '{"image": "lost.jpg"}\n'
    for name, lines in (("few", lost * 20), ("enough", (found + lost * 9) * 10), ("one", found + lost * 300)):
        (tmp_path / f"{name}.jsonl").write_text(lines)
        index = index_shard(str(tmp_path / f"{name}.jsonl"), [str(tmp_path)])
        assert len(index.rows) == {"few": 20, "enough": 100, "one": 21}[name]
        told = "21 of the first 22 rows have no image that can be read" if name == "one" else None
        assert index.failure == told


def test_a_parquet_list_may_take_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    # the kernel takes a limit of 0 for one second of the processor: 3,000,000 rows take more
    monkeypatch.setattr(parquet_lists, "SECONDS", 0)
    data = parquet(pa.table({"image": pa.array(["a.jpg"] * 3_000_000).dictionary_encode()}))
    with pytest.raises(SourceError, match="by a limit or a fault"):
        for _ in parquet_lists.parquet_rows(io.BytesIO(data), [["image"], ["text"], ["key"]], [9, 9, 9]):
            pass


def test_lists_quote_nothing_of_a_file(tmp_path: Path) -> None:
    """A file that is no list of images shows nothing of what is in it."""
    secret = "hunter2"
    rows = [
        f'{{"password": "{secret}", "text": "{secret}", "key": "{secret}"}}',
        f'"{secret}"',
        f"{secret}=1",
        f"{{{secret}",
    ]
    rows += [f'{{"image": "/{secret}"}}', f'{{"image": "{secret}.jpg"}}', f'{{"image": "s3://{secret}/x"}}']
    rows += [
        f'{{"image": "zip://{secret}::x"}}',
        f'{{"image": "{secret}\\n"}}',
        f'{{"image": "https://{secret}:a@b/x"}}',
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    for suffix in (".tar", ".parquet", ".csv"):
        (tmp_path / f"list{suffix}").write_text("\n".join(rows * 100))
    for suffix in (".jsonl", ".tar", ".parquet", ".csv"):
        index = index_shard(str(tmp_path / f"list{suffix}"), [str(tmp_path)])
        assert secret not in f"{index.rows} {index.failure}", suffix
        assert index.failure or len(index.rows) == len(rows)


def test_keys_are_distinct() -> None:
    keys, rng = Keys(), random.Random(0)
    given = [rng.choice(["a", "a-2", "a-3", "a-2-2", "b", "", "\ud800"]) for _ in range(2000)]
    made = [keys.distinct(key) for key in given]
    assert len(set(made)) == len(made)
    assert all(name == key or name.rpartition("-")[0] == key for name, key in zip(made, given, strict=True))
