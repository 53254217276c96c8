"""The profiles for smaller machines in the pipelines of one process, with tiny checkpoints as weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import Florence2ForConditionalGeneration, GenerationConfig, Qwen3VLForConditionalGeneration

from bench.fakes.scripted_server import good, scripted
from models.items import ComposeRequest
from models.pipeline import LlmPipeline, VisionPipeline
from strata.core.profiles import load_profile
from strata.core.records import ImageReference, Record
from tests.models.test_profiles import pictures
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make
from tests.models.tiny.tiny_profiles import CAPTION, REGIONS, WRITTEN, make_checkpoints, write_copy

NAMES = ("laptop", "small", "modern-vllm")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"), NAMES)


def _records(images: list[Image.Image]) -> list[tuple[Record, Image.Image]]:
    blank = Record(key="0", image=ImageReference(uri="a.png", size=1))
    return [(blank.model_copy(update={"width": i.width, "height": i.height}), i) for i in images]


def _with_regions(compute: Callable[[Any], Any], model: Any, folder: Path) -> Callable[[Any], Any]:
    """The detector's `compute` with a model that writes regions meanwhile: the captioner's model writes a caption."""
    regions = GenerationConfig.from_pretrained(folder)
    regions.no_repeat_ngram_size, regions.forced_eos_token_id = None, None

    def computed(batch: Any) -> Any:
        own, model.generation_config = model.generation_config, regions
        try:
            return compute(batch)
        finally:
            model.generation_config = own

    return computed


def test_laptop_describes_with_one_florence(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = Florence2ForConditionalGeneration.from_pretrained

    def counted(folder: Path, **arguments: Any) -> Any:
        loads.append(str(folder))
        return load(folder, **arguments)

    monkeypatch.setattr(Florence2ForConditionalGeneration, "from_pretrained", counted)
    profile = load_profile("laptop", write_copy("laptop", tmp_path / "profiles", checkpoints))
    vision, llm = VisionPipeline(profile), LlmPipeline(profile)
    vision.load()
    llm.load()
    assert loads == [str(checkpoints["florence-community/Florence-2-base"])]
    detector: Any = vision.stages["detector"]
    folder = make(tiny_models.florence, tmp_path / "regions", answer=REGIONS)
    monkeypatch.setattr(detector, "compute", _with_regions(detector.compute, detector._model, folder))
    records = llm.run([ComposeRequest(one) for one in vision.run(_records(pictures()))])
    for record, image in zip(records, pictures(), strict=True):
        assert record.status == "succeeded", record.failure
        assert record.caption and record.caption.text == CAPTION
        assert record.regions and [region.phrase for region in record.regions] == ["a red car", "an owl"]
        assert record.regions[0].box == pytest.approx(
            (0.1 * image.width, 0.2 * image.height, 0.5 * image.width, 0.8 * image.height), abs=1
        )
        assert record.objects is not None and len(record.objects) == 6
        assert record.description is not None
    # the composer of this size names nothing but what the notes name
    assert [[line.text for line in record.text or () if line.kept] for record in records] == [["OPEN"], []]
    assert records[0].description and '"OPEN"' in records[0].description.text


def test_small_captions_composes_and_doubts_with_one_qwen(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = Qwen3VLForConditionalGeneration.from_pretrained

    def counted(folder: Path, **arguments: Any) -> Any:
        loads.append(str(folder))
        return load(folder, **arguments)

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "from_pretrained", counted)
    profile = load_profile("small", write_copy("small", tmp_path / "profiles", checkpoints))
    vision, llm = VisionPipeline(profile), LlmPipeline(profile)
    vision.load()
    llm.load()
    assert loads == [str(checkpoints["Qwen/Qwen3-VL-2B-Instruct"])]
    detector: Any = vision.stages["detector"]
    folder = make(tiny_models.florence, tmp_path / "regions", answer=REGIONS)
    monkeypatch.setattr(detector, "compute", _with_regions(detector.compute, detector._model, folder))
    second: Any = vision.stages["second_matcher"]
    opinions: list[tuple[str, float]] = []
    compute, prepare = second.compute, second.prepare
    asked: list[str] = []

    def prepared(batch: Any) -> Any:
        asked.extend(pair.phrase for pair in batch)
        return prepare(batch)

    def computed(batch: Any) -> Any:
        results = compute(batch)
        opinions.extend(zip(asked[len(opinions) :], results, strict=True))
        return results

    monkeypatch.setattr(second, "prepare", prepared)
    monkeypatch.setattr(second, "compute", computed)
    records = llm.run([ComposeRequest(one) for one in vision.run(_records(pictures()))])
    entries = [entry for record in records for layer in (record.regions, record.objects) for entry in layer or ()]
    for record in records:
        assert record.status == "succeeded", record.failure
        assert record.caption and record.caption.text == WRITTEN and record.description is not None
        assert record.verification and record.verification.text == WRITTEN and "second_matcher" in record.seconds
    # it is asked about what the first one keeps, and drops what it thinks less likely than not
    passed = [entry for entry in entries if entry.match is not None and entry.match >= 0.01]
    assert sorted(entry.phrase or "" for entry in passed) == sorted(phrase for phrase, _ in opinions)
    assert 0 < sum(value < 0.5 for _, value in opinions) == sum(e.reason == "low_second_match" for e in entries)


def test_modern_vllm_asks_its_servers_for_texts(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    with scripted(
        lambda body: good("a red car" if isinstance(body["messages"][-1]["content"], list) else WRITTEN)
    ) as server:
        folder = write_copy("modern-vllm", tmp_path / "profiles", checkpoints, server.url)
        profile = load_profile("modern-vllm", folder)
        vision, llm = VisionPipeline(profile), LlmPipeline(profile)
        vision.load()
        llm.load()
        records = llm.run([ComposeRequest(one) for one in vision.run(_records(pictures()))])
        asked = server.asked
    for record in records:
        assert record.status == "succeeded", record.failure
        assert record.caption and record.caption.text == "a red car" and len(record.objects or ()) == 20
        # the composer's text; the description is what remains of it
        assert record.description and record.verification and record.verification.text == WRITTEN
    limits = sorted({(body["model"], body["max_tokens"]) for body in asked})
    assert limits == [("Qwen/Qwen3-4B-Instruct-2507", 400), *(("Qwen/Qwen3-VL-8B-Instruct", n) for n in (30, 200))]
    # one question for each image and each crop, and one for each description
    assert len(asked) == 2 * (1 + 20) + 2
