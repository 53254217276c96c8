"""A job's own prompt: its template is filled with the fields of each sample's JSON file, read once a chunk."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bench.fakes.scripted_server import good, scripted
from models.pipeline import LlmPipeline
from models.variants.composed import FIELD_WARNING
from strata.core import Caption, ImageReference, Record, TextSettings
from strata.core.chunks import Chunk
from strata.shards import index_shard
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


@pytest.mark.parametrize("make", [tar_of, folder_of])
def test_the_fields_of_each_sample_reach_its_prompt(make: Any, store: Store, tmp_path: Path) -> None:
    shard = make(tmp_path / "a")
    index = index_shard(shard)
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
