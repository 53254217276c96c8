"""The groups over chat servers: which pixels reach the server, whose answer goes where, and what is paid for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import models.chat.server as chat_server
from bench.fakes.scripted_server import Reply, good, is_plain, scripted
from models.base import StageUnavailable
from models.pipeline import LlmPipeline, VisionPipeline
from models.prompts import FOLDER
from models.weights.hashes import sha256_of
from strata.core.chunks import Chunk
from strata.core.profiles import Profile, StageSettings
from strata.core.records import ImageReference, Record, Status
from strata.core.usage import Usage
from strata.shards.sources import index_shard
from strata.store.store import Store
from tests.fakes import DECODER, FAKE_PROFILE, jpeg, write_shard
from tests.models.test_chat import captioner, picture_of
from tests.models.test_stages import SETTINGS, FakeDetector, FakeMatcher, FakeOcr, FakeSegmenter
from workers import items
from workers.groups import LlmGroup, PipelineCache
from workers.profile_versions import ProfileVersions

COLOURS = ("red", "lime", "blue", "yellow")


def colour_of(image: Image.Image) -> str:
    """The nearest of COLOURS to the pixel in the middle; a small image has a white margin."""
    pixel = np.asarray(image.convert("RGB"))[image.height // 2, image.width // 2].astype(int)
    known = {name: np.asarray(Image.new("RGB", (1, 1), name))[0, 0].astype(int) for name in COLOURS}
    return min(known, key=lambda name: int(np.abs(known[name] - pixel).sum()))


def profile(url: str, with_image: bool) -> Profile:
    prompt = "sighted" if with_image else "full"
    parameters = {"served_model": "m", "prompt": prompt, "prompt_sha256": sha256_of(FOLDER / f"{prompt}.toml")}
    composer = StageSettings(
        backend="openai",
        model=f"server:{url}",
        revision="1",
        parameters={**parameters, "with_image": with_image},
    )
    return FAKE_PROFILE.model_copy(update={"stages": {**FAKE_PROFILE.stages, "composer": composer}})


def described(store: Store, chosen: Profile, shard: str, rows: int) -> list[Record]:
    """What the real `llm` group makes of a shard's images, whose layers are empty."""
    index = index_shard(shard)
    records = [
        Record(
            key=row.key,
            image=ImageReference(uri=row.uri, offset=row.offset, size=row.size),
            width=32,
            height=24,
            alt_text=row.alt_text,
        )
        for row in index.rows
    ]
    chunk = Chunk("llm", "fake", chosen.fingerprint("llm"), shard, index.identity, 0, rows)
    store.write_records(chunk.of_group("vision", chosen.fingerprint("vision")), records)
    group = LlmGroup(store, PipelineCache(LlmPipeline, ProfileVersions(lambda _: chosen)), DECODER)
    items = group.decode(group.read(chunk, group.items(chunk)))
    done = iter(group.compute(chunk, [item for item in items if not item.settled]))
    return [item.record if item.settled else next(done) for item in items]


def test_the_composer_sees_each_records_own_image(store: Store, tmp_path: Path) -> None:
    images = [jpeg(colour=name) for name in COLOURS]
    shard = write_shard(tmp_path / "a.tar", images)
    with scripted(lambda body: good(f"It is {colour_of(picture_of(body))}.")) as server:
        records = described(store, profile(server.url, with_image=True), shard, len(images))
    assert [record.description.text for record in records if record.description] == [f"It is {c}." for c in COLOURS]
    assert all(
        record.usage["composer"] == Usage(prompt_tokens=5, completion_tokens=3, requests=1) for record in records
    )


def test_an_image_that_went_is_said_so_and_without_images_none_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "GONE_SECONDS", 0.0)
    shard = write_shard(tmp_path / "a.tar", [jpeg()] * 2)
    with scripted(lambda body: good("It is there.")) as server:
        blind = profile(server.url, with_image=False)
        assert not blind.sees_images("llm") and not blind.sees_images("vision")
        records = described(store, blind, shard, 2)
        assert [record.status for record in records] == [Status.SUCCEEDED] * 2
        sighted = profile(server.url, with_image=True)
        group = LlmGroup(store, PipelineCache(LlmPipeline, ProfileVersions(lambda _: sighted)), DECODER)
        chunk = Chunk("llm", "fake", sighted.fingerprint("llm"), shard, index_shard(shard).identity, 0, 2)
        Path(shard).unlink()
        read = group.read(chunk, group.items(chunk))
    assert all(item.settled and item.record.failure is not None for item in read)
    assert [item.record.failure.stage for item in read if item.record.failure] == ["read"] * 2


@pytest.fixture
def pipeline() -> VisionPipeline:
    stages = (FakeDetector, FakeSegmenter, FakeOcr, FakeMatcher)
    pipeline = VisionPipeline(FAKE_PROFILE, {stage.name: stage(SETTINGS) for stage in stages})
    pipeline.parallel = True  # as beside any captioner that is a server
    segmenter: Any = pipeline.stages["segmenter"]
    segmenter.parameters = type("Parameters", (), {"max_masks": 1})
    return pipeline


def test_captions_and_crops_go_back_to_their_image_and_are_paid_once(
    pipeline: VisionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE", 0.01)
    down = {"crops": True}
    asked: list[str] = []

    def answer(body: dict[str, Any]) -> Reply:
        kind = "scene" if body["max_tokens"] == 100 else "crop"
        if down["crops"] and kind == "crop":
            return Reply("", 503)
        if is_plain(body):
            return good("yes", read=1, written=1)
        asked.append(hashlib.sha256(str(body["messages"]).encode()).hexdigest())
        return good(f"{kind} {colour_of(picture_of(body))}", read=7, written=2)

    images = [Image.new("RGB", (10, 20), name) for name in COLOURS]  # so wide that there is one object
    batch = [
        (Record(key=name, image=ImageReference(uri="a", size=1)), image)
        for name, image in zip(COLOURS, images, strict=True)
    ]
    with scripted(answer) as server:
        pipeline.stages["captioner"] = captioner(server.url, image_format="png", retries=1)
        with pytest.raises(StageUnavailable):
            pipeline.run(batch)
        assert len(asked) == 4  # the scenes
        down["crops"] = False
        records = pipeline.run(batch)
        again = pipeline.run(batch[:1])  # the answers before have gone out: this is new work
    assert len([key for key in asked if asked.count(key) == 1]) == 6 and len(asked) == 10
    for name, record in zip(COLOURS, records, strict=True):
        assert record.caption is not None and record.caption.text == f"scene {name}"
        assert record.objects is not None and [thing.phrase for thing in record.objects] == [f"crop {name}"]
        once, whole = pipeline.bound(record)["captioner"]
        used = record.usage["captioner"]
        plain = used.requests - 2  # what was asked to find out that the server is there again
        assert (used.prompt_tokens, used.completion_tokens) == (14 + plain, 4 + plain) and plain <= 1
        assert (once.completion_tokens, once.requests) == (130, 2)
        assert whole.requests == 2 * 2 * (2 + 4)  # a text that a guard rejects is asked for again
    assert again[0].usage["captioner"].requests == 2
