"""The profiles for smaller machines in the pipelines of one process, with tiny checkpoints as weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import Florence2ForConditionalGeneration, GenerationConfig

from models.pipeline import LlmPipeline, VisionPipeline
from strata.core.profiles import load_profile
from strata.core.records import ImageReference, Record
from tests import tiny_models
from tests.models.test_profiles import pictures
from tests.tiny_models import make
from tests.tiny_profiles import CAPTION, REGIONS, make_checkpoints, write_copy

NAMES = ("laptop",)


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
    records = llm.run(vision.run(_records(pictures())))
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
