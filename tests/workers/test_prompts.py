"""A job's own prompt: its template is filled with the fields of each sample's metadata, read once a chunk."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.fakes.scripted_server import good, scripted
from models.pipeline import LlmPipeline
from models.variants.composed import FIELD_WARNING
from strata.core import Caption, ImageReference, Record, TextSettings
from strata.core.chunks import Chunk
from strata.core.parameters import filled
from strata.shards import ImageReader, MetadataReader, SourceError, index_shard
from strata.store import Store
from tests.fakes import DECODER, jpeg
from tests.workers.test_chat_groups import profile
from workers.groups import LlmGroup, PipelineCache
from workers.profile_versions import ProfileVersions

NOTES: list[Any] = [
    {"url": "https://one.example/{key}", "similarity": 0.31},
    None,
    ["no", "object"],
    {"url": "two\n\x00"},
]
PROMPT = "Its address is [{url}], its likeness [{similarity}], its name {key}, its size {width}x{height}."


def tar_of(path: Path) -> str:
    """A shard as img2dataset writes it: KEY.jpg, KEY.json and KEY.txt."""
    with tarfile.open(path, "w") as tar:
        for number, note in enumerate(NOTES):
            files = {"jpg": jpeg(), "txt": b"words"} | ({} if note is None else {"json": json.dumps(note).encode()})
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{number:05d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(path)


def folder_of(path: Path) -> str:
    """The same files in a folder, with a link to what lies outside."""
    path.mkdir()
    with tarfile.open(tar_of(path.parent / "b.tar")) as tar:
        tar.extractall(path, filter="data")
    (path.parent / "outside.json").write_text('{"url": "secret"}', encoding="utf-8")
    (path / "00001.json").symlink_to(path.parent / "outside.json")
    return str(path)


def lines_of(path: Path) -> str:
    """The same as a list of JSON lines beside the images; what is no object is a row without more fields."""
    path.mkdir()
    lines = []
    for number, note in enumerate(NOTES):
        (path / f"{number:05d}.jpg").write_bytes(jpeg())
        lines.append(json.dumps({"path": f"{number:05d}.jpg", **(note if isinstance(note, dict) else {})}))
    (path / "list.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    return str(path / "list.jsonl")


def table_of(file: Path, **images: list[Any]) -> str:
    notes = [note if isinstance(note, dict) else {} for note in NOTES]
    columns = {name: [note.get(name) for note in notes] for name in ("url", "similarity")}
    pq.write_table(pa.table({**columns, **images}), file, row_group_size=3)
    return str(file)


def parquet_of(path: Path) -> str:
    """The same as img2dataset writes Parquet: the images in a column, the key beside it."""
    keys = [f"{number:05d}" for number in range(len(NOTES))]
    return table_of(path.with_suffix(".parquet"), jpg=[jpeg()] * len(NOTES), key=keys)


def paths_of(path: Path) -> str:
    """The same as a Parquet list of paths."""
    folder = Path(lines_of(path)).parent
    return table_of(folder / "list.parquet", path=[f"{number:05d}.jpg" for number in range(len(NOTES))])


@pytest.mark.parametrize("make", [tar_of, folder_of, lines_of, parquet_of, paths_of])
def test_the_fields_of_each_sample_reach_its_prompt(make: Any, store: Store, tmp_path: Path) -> None:
    shard = make(tmp_path / "a")
    index = index_shard(shard, [str(tmp_path)])
    with scripted(lambda body: good("A white picture is there.")) as server:
        chosen = profile(server.url, with_image=False).with_texts(TextSettings(prompt=PROMPT))
        records = [
            Record(
                key=row.key,
                image=ImageReference(uri=row.uri, offset=row.offset, size=row.size),
                width=32,
                height=24,
                caption=Caption(text="a white picture", score=1.0),
            )
            for row in index.rows
        ]
        chunk = Chunk("llm", "fake", chosen.fingerprint("llm"), shard, index.identity, 0, len(NOTES))
        store.write_records(chunk.of_group("vision", chosen.fingerprint("vision")), records)
        group = LlmGroup(store, PipelineCache(LlmPipeline, ProfileVersions(lambda _: chosen)), DECODER)
        found = group.compute(chunk, group.items(chunk))
        asked = [body["messages"][-1]["content"].rpartition(":\n")[2] for body in server.bodies]
        bound = LlmPipeline(chosen).bound(records[0], chosen.texts)["composer"][0]
    assert set(asked) == {
        "Its address is [https://one.example/{key}], its likeness [0.31], its name 00000, its size 32x24.",
        "Its address is [], its likeness [], its name 00001, its size 32x24.",
        "Its address is [], its likeness [], its name 00002, its size 32x24.",
        "Its address is [two], its likeness [], its name 00003, its size 32x24.",
    }
    assert [len(one.warnings) for one in found] == [0, 1, 1, 1]
    assert found[3].warnings[0].type == FIELD_WARNING and "similarity" in found[3].warnings[0].detail
    assert bound.prompt_tokens > 1500


def read_from(metadata: MetadataReader, shard: str, first: int, names: list[str]) -> list[Any]:
    """The metadata of the two samples of a list from a number on."""
    index = index_shard(shard, [str(Path(shard).parent)])
    samples = [Record(key=row.key, image=ImageReference(uri=row.uri, size=row.size)) for row in index.rows]
    return list(metadata.read(shard, index.identity, first, samples[first : first + 2], names))


@pytest.mark.parametrize("kind", ["lines", "paths", "images"])
def test_columns_of_any_type_and_in_any_order_of_chunks(kind: str, tmp_path: Path) -> None:
    values: dict[str, list[Any]] = {
        "note": [{"deep": {"list": [number, 9]}, "raw": b"\x00"} for number in range(8)],
        "huge": [str(number) * 9000 for number in range(8)],
        "tags": [[str(number)] for number in range(8)],
        "day": [datetime.date(2026, 1, number + 1) for number in range(8)],
    }
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg())
    if kind == "lines":
        path = tmp_path / "list.jsonl"
        rows = [{"path": f"{n}.jpg", **{name: found[n] for name, found in values.items()}} for n in range(8)]
        path.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in rows), encoding="utf-8")
    else:
        path = tmp_path / "list.parquet"
        column = {"path": [f"{n}.jpg" for n in range(8)]} if kind == "paths" else {"jpg": [jpeg()] * 8}
        pq.write_table(pa.table({**column, **values}), path, row_group_size=3)
    metadata = MetadataReader(ImageReader())
    names = ["note.deep.list", "huge", "tags", "day", "none"]
    for first in (2, 4, 6, 0, 7):
        for number, fields in enumerate(read_from(metadata, str(path), first, names), first):
            text, missing = filled("{note.deep.list}|{huge}|{tags}|{day}|{none}", fields)
            deep, huge, tags, day, _ = text.split("|")
            assert (deep, tags, day) == (f"[{number}, 9]", f'["{number}"]', f"2026-01-0{number + 1}")
            assert huge == str(number) * 500 and missing == ["none"]


def test_a_list_that_has_changed_gives_no_fields_of_another_sample(tmp_path: Path) -> None:
    shard = lines_of(tmp_path / "a")
    index, metadata = index_shard(shard, [str(tmp_path)]), MetadataReader(ImageReader())
    samples = [Record(key=row.key, image=ImageReference(uri=row.uri, size=row.size)) for row in index.rows]
    # a line was put before the others, and the last ones are gone
    lines = Path(shard).read_text(encoding="utf-8").split("\n\n")
    Path(shard).write_text("\n".join([json.dumps({"path": "new.jpg", "url": "x"}), lines[1]]), encoding="utf-8")
    assert [one.get("url") for one in metadata.read(shard, index.identity, 0, samples, ["url"])] == [None] * 4
    packed = parquet_of(tmp_path / "b")
    index = index_shard(packed)
    samples = [Record(key=row.key, image=ImageReference(uri=row.uri, size=row.size)) for row in index.rows]
    table_of(Path(packed), jpg=[jpeg(33)] * len(NOTES))
    with pytest.raises(SourceError, match="has changed"):
        metadata.read(packed, index.identity, 0, samples, ["url"])
