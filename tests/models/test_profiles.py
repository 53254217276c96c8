"""The profiles `paper` and `modern` on tiny random checkpoints: the profile's own file but for where the weights lie.

A real worker takes a shard to a part with them, and what each setting decides is looked for in that part.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFont
from transformers import Blip2ForConditionalGeneration, Qwen3VLForConditionalGeneration

from bench.fakes.scripted_server import good, scripted
from bench.inputs.tiny_shards import write_shard
from bench.processes import Fleet
from models.base import SegmenterStage
from models.building import build_stage, build_stages
from models.pipeline import VisionPipeline
from models.prompts import load_prompt
from models.stages.sam.decoder import PointDecoder
from models.weights.inventory import PROFILES
from strata.cli.exits import WEIGHTS_MISSING
from strata.client.client import Client
from strata.core.layers.features import FEATURES
from strata.core.profiles import COMMIT, STAGES_OF, load_profile
from strata.core.records import RECORD_SCHEMA, ImageReference, ObjectMask, Record, Region, table_to_records
from strata.core.schemas import JobStatus
from tests.checkout import CHECKOUT
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make
from tests.models.tiny.tiny_profiles import WRITTEN, make_checkpoints, write_copy
from tests.servers.hub_server import running_hub

NAMES = ("paper", "modern")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"), NAMES)


def pictures() -> list[Image.Image]:
    """Two pictures, one with a word on it."""
    sign = Image.new("RGB", (120, 90), "lightblue")
    draw = ImageDraw.Draw(sign)
    draw.rectangle((10, 30, 110, 70), "white")
    draw.text((20, 36), "OPEN", "black", font=ImageFont.load_default(size=26))
    plain = Image.new("RGB", (90, 110), "green")
    plain.paste("yellow", (5, 20, 60, 70))
    return [sign, plain]


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@dataclass
class Made:
    """A profile's name, its copy's folder, the records of a worker's part, and what a chat server was asked."""

    name: str
    profiles: Path
    records: list[Record]
    bodies: list[dict[str, Any]]


@pytest.fixture(scope="module")
def all_made(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """What one worker makes of two pictures with each profile. It is told of a hub, which must not hear of it."""
    folder = tmp_path_factory.mktemp("made")
    write_shard(folder / "shards" / "0.tar", 0, 2, dict(enumerate(map(as_png, pictures()))))
    with ExitStack() as stack:
        chats = {name: stack.enter_context(scripted(lambda _: good(WRITTEN))) for name in NAMES}
        hub = stack.enter_context(running_hub())
        for name in NAMES:
            profiles = write_copy(name, folder / "profiles", checkpoints, chats[name].url)
        settings = {
            "STRATA_PROFILES_DIR": str(profiles),
            "STRATA_PROFILE": NAMES[0],
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
        }
        workers = [["worker", "--groups", "index,vision,llm"]]
        fleet = stack.enter_context(Fleet(folder / "fleet", str(folder / "shards"), workers, settings, worker="strata"))
        fleet.wait_ready(300)
        with Client(fleet.url, timeout=300) as client:
            jobs = {name: client.submit([str(folder / "shards" / "0.tar")], profile=name) for name in NAMES}
            for job in jobs.values():
                end = client.wait(job.id, poll=0.2)
                failures = list(client.failures(end.id))
                assert end.status is JobStatus.COMPLETED
                assert (end.request_counts.total, end.request_counts.succeeded) == (2, 2), failures
        assert hub.asked == []
    parts = folder / "fleet" / "store" / "parts" / "llm"
    return {name: Made(name, profiles, _records(parts, name, profiles), chats[name].bodies) for name in NAMES}


def _records(parts: Path, name: str, profiles: Path) -> list[Record]:
    """The records of the only part that a profile has made."""
    (part,) = (parts / load_profile(name, profiles).fingerprint("llm")).rglob("*.parquet")
    table = pq.ParquetFile(part).read()
    assert table.schema.equals(RECORD_SCHEMA)
    return table_to_records(table)


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest, all_made: dict[str, Made]) -> Made:
    return all_made[request.param]


def _entries(records: list[Record]) -> list[tuple[Region | ObjectMask, int]]:
    """Regions and objects with the index of their threshold in the profile: 0 for regions, 1 for objects."""
    return [(e, i) for r in records for i, layer in enumerate((r.regions, r.objects)) for e in layer or ()]


def test_every_layer_is_in_the_part(made: Made) -> None:
    assert [record.status for record in made.records] == ["succeeded"] * 2
    for record, image in zip(made.records, pictures(), strict=True):
        assert (record.width, record.height) == image.size
        assert record.caption and record.caption.text and record.caption.match is not None
        assert record.regions and [region.phrase for region in record.regions] == ["a red car", "an owl"]
        assert record.regions[0].box == pytest.approx(
            (0.1 * image.width, 0.2 * image.height, 0.5 * image.width, 0.8 * image.height), abs=1
        )
        assert record.objects and record.text is not None and record.description and record.description.text
        assert {"captioner", "detector", "segmenter", "ocr", "matcher", "composer"} <= set(record.seconds)
    assert [[line.text for line in record.text or () if line.kept] for record in made.records] == [["OPEN"], []]


def test_the_largest_twenty_masks_become_objects(made: Made) -> None:
    settings = load_profile(made.name, made.profiles).stages["segmenter"]
    more = settings.model_copy(update={"parameters": settings.parameters | {"max_masks": 1000}})
    segmenter: SegmenterStage = build_stage("segmenter", more)
    segmenter.load()
    (everything,) = segmenter.run(pictures()[:1])
    assert isinstance(everything, list) and len(everything) > 20
    largest = sorted((int(segment.mask.sum()) for segment in everything), reverse=True)[:20]
    assert [thing.area for thing in made.records[0].objects or ()] == largest
    assert all(len(record.objects or ()) == 20 for record in made.records)


def test_the_profile_s_thresholds_decide_what_is_kept(made: Made) -> None:
    least = {"paper": (0.4, 0.5), "modern": (0.01, 0.01)}[made.name]
    entries = _entries(made.records)
    for entry, layer in entries:
        assert entry.match is not None
        assert (entry.reason == "low_match") == (entry.match < least[layer])
        assert entry.kept == (entry.reason is None)
    assert {entry.reason for entry, _ in entries} >= {None, "low_match"}
    for line in (line for record in made.records for line in record.text or ()):
        assert (line.reason == "low_score") == (not line.kept) == (line.score is None or line.score < 0.85)


def test_limits_reach_the_models(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    writer: Any = {"paper": Blip2ForConditionalGeneration, "modern": Qwen3VLForConditionalGeneration}[made.name]
    limits, points = set(), 0
    generate, forward = writer.generate, PointDecoder.forward

    def generated(model: Any, **arguments: Any) -> Any:
        limits.add((arguments["max_new_tokens"], arguments["num_beams"], arguments["do_sample"]))
        return generate(model, **arguments)

    def masked(decoder: PointDecoder, features: Any, asked: Any, least: float) -> Any:
        nonlocal points
        points += len(asked)
        return forward(decoder, features, asked, least)

    monkeypatch.setattr(writer, "generate", generated)
    monkeypatch.setattr(PointDecoder, "forward", masked)
    pipeline = VisionPipeline(load_profile(made.name, made.profiles))
    pipeline.load()
    limits.clear()  # of the stages' probes
    points = 0
    blank = Record(key="0", image=ImageReference(uri="a.png", size=1))
    images = pictures()
    again = pipeline.run([(blank.model_copy(update={"width": i.width, "height": i.height}), i) for i in images])
    scene = {"paper": (30, 5, False), "modern": (200, 1, False)}[made.name]
    assert limits == {scene, (30, 1, False)}
    assert points == 2 * 32 * 32
    # the worker said the very same, so it was told the same
    for mine, theirs in zip(again, made.records, strict=True):
        assert mine.caption and theirs.caption and mine.caption.text == theirs.caption.text
        assert [thing.phrase for thing in mine.objects or ()] == [thing.phrase for thing in theirs.objects or ()]
        assert [t.match for t in mine.objects or ()] == pytest.approx([t.match for t in theirs.objects or ()], abs=1e-4)


@pytest.mark.parametrize(
    ("name", "below", "above"), [("paper", 0.875, 0.885), ("modern", 1.38, 1.40)], ids=["paper", "modern"]
)
def test_masks_that_sam_doubts_are_none(
    name: str, below: float, above: float, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """0.88 for SAM, 0.8 for SAM 2, whose estimate is a sigmoid: of 1.386."""
    maker = {"paper": tiny_models.sam, "modern": tiny_models.sam2}[name]
    settings = load_profile(name, write_copy(name, tmp_path / "profiles", checkpoints)).stages["segmenter"]
    found = []
    for sure in (below, above):
        folder = make(maker, tmp_path / str(sure), sure=sure)
        segmenter: SegmenterStage = build_stage("segmenter", settings.model_copy(update={"model": f"local:{folder}"}))
        segmenter.load()
        (segments,) = segmenter.run(pictures()[1:])
        assert isinstance(segments, list)
        found.append(len(segments))
    assert found == [0, 20]


def test_the_composer_is_asked_as_the_profile_says(made: Made) -> None:
    chosen = load_profile(made.name, made.profiles).stages["composer"].parameters
    if made.name == "modern":  # in process; the chat server of the fixture hears nothing
        assert made.bodies == []
        assert all(0 < len((record.description or pytest.fail()).text) <= 400 for record in made.records)
        return
    # the verifier cuts what the random models have not seen, and keeps the original
    assert [(record.verification or pytest.fail()).text for record in made.records] == [WRITTEN] * 2
    assert len(made.bodies) == 2
    for body in made.bodies:
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("Qwen/Qwen3-4B-Instruct-2507", 0, 400)
        system, notes = body["messages"]
        assert system["content"] == load_prompt("full", chosen["prompt_sha256"]).system
        assert ("Text that can be read" in notes["content"]) == ("OPEN" in notes["content"])
        assert "Words found beside the picture:\nimage " in notes["content"]
    assert sum("OPEN" in body["messages"][1]["content"] for body in made.bodies) == 1


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_pinned_and_in_the_fingerprint(name: str) -> None:
    profile = load_profile(name, PROFILES)
    for stage, settings in profile.stages.items():
        if settings.model.startswith("hub:"):
            assert COMMIT.fullmatch(settings.revision)
        other = settings.model_copy(update={"revision": "0" * 40})
        changed = profile.model_copy(update={"stages": profile.stages | {stage: other}})
        if stage in STAGES_OF[FEATURES]:  # it decides its own parts, and nothing else
            assert changed.feature_ways()[stage] != profile.feature_ways()[stage]
            assert changed.fingerprint("llm") == profile.fingerprint("llm")
            continue
        group = "llm" if stage in ("composer", "verifier") else "vision"
        assert changed.fingerprint(group) != profile.fingerprint(group)
    for group in ("vision", "llm"):
        build_stages(profile, group)  # every parameter is known, the prompt is the one that is pinned


def test_a_worker_without_weights_says_which_and_how(valkey_url: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "STRATA_MODELS": str(tmp_path),
        "REDIS_URL": valkey_url,
        "STRATA_STORE": str(tmp_path / "store"),
        "PYTHONPATH": str(CHECKOUT),
    }
    command = [sys.executable, "-X", "importtime", "-m", "strata", "worker", "--groups", "vision", "--profile", "paper"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == WEIGHTS_MISSING, done.stderr
    lines = done.stderr.splitlines()
    told = "\n".join(line for line in lines if not line.startswith("import time:"))
    remedy = "get them with `strata models fetch paper`"
    assert re.search(rf"^strata worker: weights of hub:\S+ are not in .*; {remedy}", told)
    assert "Traceback" not in told
    # no model's library is imported for this: each takes seconds
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "models.weights.cache" in imported and not imported & {"torch", "transformers"}
