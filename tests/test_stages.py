"""The stage contract and the vision pipeline, with fake stages that say what they saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from models.base import CaptionRequest, Detection, Failure, Pair, ReadLine, Segment, Stage, StageUnavailable
from models.boxes import iou
from models.evidence_filter import keep
from models.pipeline import VisionPipeline, crop_segment, encode_mask
from strata.profiles import EvidenceSettings, Profile, ProfileError, StageSettings, load_profile, profile_names
from strata.records import Caption, ImageReference, ObjectMask, Record, Region, Status, TextLine
from strata.settings import CHECKOUT

SETTINGS = StageSettings(backend="fake", model="builtin:fake", revision="1", batch_size=4)
Colour = tuple[int, int, int]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class FakeDoubler(Stage[int, int]):
    """Doubles numbers; 13 breaks its whole batch, 99 is a server that is away."""

    name: ClassVar[str] = "doubler"
    calls: int = 0

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[int]) -> list[int]:
        self.calls += 1
        assert len(batch) <= 4
        if 13 in batch:
            raise ValueError("unlucky")
        if 99 in batch:
            raise StageUnavailable("away")
        return [2 * number for number in batch]


def test_a_failing_item_leaves_its_neighbours_whole() -> None:
    answers = FakeDoubler(SETTINGS).run([1, 2, 13, 4, 5, 6])
    assert answers[:2] == [2, 4] and answers[3:] == [8, 10, 12]
    assert answers[2] == Failure("doubler", "ValueError", "unlucky")


def test_batches_are_no_larger_than_told_and_an_empty_one_is_no_call() -> None:
    stage = FakeDoubler(SETTINGS)
    assert stage.run(list(range(9))) == [2 * i for i in range(9)]
    assert stage.calls == 3
    assert stage.run([]) == []
    assert stage.calls == 3


def test_an_unavailable_stage_is_no_images_fault() -> None:
    with pytest.raises(StageUnavailable):
        FakeDoubler(SETTINGS).run([1, 99])


def colour_of(image: Image.Image) -> Colour:
    """The most frequent colour that is not white."""
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    coloured = pixels[(pixels != 255).any(axis=1)]
    if not len(coloured):
        return 255, 255, 255
    colours, counts = np.unique(coloured, axis=0, return_counts=True)
    red, green, blue = (int(value) for value in colours[counts.argmax()])
    return red, green, blue


class FakeCaptioner(Stage[CaptionRequest, str]):
    """Says the colour it sees."""

    name: ClassVar[str] = "captioner"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[CaptionRequest]) -> list[str]:
        return [f"{request.kind} {colour_of(request.image)}" for request in batch]


class FakeDetector(Stage[Image.Image, list[Detection]]):
    """As many detections as the image is tens of pixels wide; images of 66 pixels break it."""

    name: ClassVar[str] = "detector"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Detection]]:
        if any(image.width == 66 for image in batch):
            raise RuntimeError("too wide")
        return [
            [
                Detection((10.0 * i, 0.0, 10.0 * i + 10, 10.0), str(image.getpixel((10 * i, 0))), 0.9)
                for i in range(image.width // 10)
            ]
            for image in batch
        ]


class FakeSegmenter(Stage[Image.Image, list[Segment]]):
    """One mask of the upper left quarter."""

    name: ClassVar[str] = "segmenter"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        found = []
        for image in batch:
            mask = np.zeros((image.height, image.width), np.bool_)
            mask[: image.height // 2, : image.width // 2] = True
            found.append([Segment(mask, (0, 0, image.width // 2, image.height // 2), 0.8)])
        return found


class FakeOcr(Stage[Image.Image, list[ReadLine]]):
    """Reads the width."""

    name: ClassVar[str] = "ocr"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[Image.Image]) -> list[list[ReadLine]]:
        return [[ReadLine(str(image.width), 0.9, (0, 0, 5, 5))] for image in batch]


class FakeMatcher(Stage[Pair, float]):
    """1 where the phrase holds the colour of the crop."""

    name: ClassVar[str] = "matcher"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[Pair]) -> list[float]:
        return [float(str(colour_of(pair.crop)) in pair.phrase) for pair in batch]


@pytest.fixture
def pipeline() -> VisionPipeline:
    pipeline = VisionPipeline.__new__(VisionPipeline)
    pipeline.evidence = EvidenceSettings()
    stages = (FakeCaptioner, FakeDetector, FakeSegmenter, FakeOcr, FakeMatcher)
    pipeline.stages = {stage.name: stage(SETTINGS) for stage in stages}
    return pipeline


def record(key: str) -> Record:
    return Record(key=key, image=ImageReference(uri="a.tar", size=1))


def test_crops_and_phrases_never_change_places(pipeline: VisionPipeline) -> None:
    colours = [(i * 40 % 256, i * 70 % 256, 10) for i in range(9)]
    images = [Image.new("RGB", (10 + 10 * (i % 4), 20), colour) for i, colour in enumerate(colours)]
    answers = pipeline.run([(record(str(i)), image) for i, image in enumerate(images)])
    for i, answer in enumerate(answers):
        assert answer.key == str(i) and answer.status is Status.SUCCEEDED
        assert answer.caption == Caption(text=f"scene {colours[i]}", match=1.0)
        assert answer.regions is not None and len(answer.regions) == images[i].width // 10
        assert all(region.phrase == str(colours[i]) and region.match == 1.0 for region in answer.regions)
        assert answer.objects is not None and answer.objects[0].phrase == f"crop {colours[i]}"
        assert answer.text is not None and answer.text[0].text == str(images[i].width)
        assert set(answer.seconds) == {"captioner", "detector", "segmenter", "ocr", "matcher"}


def test_an_image_that_fails_a_stage_is_a_failed_row(pipeline: VisionPipeline) -> None:
    images = [Image.new("RGB", (width, 20), RED) for width in (30, 66, 40)]
    answers = pipeline.run([(record(str(i)), image) for i, image in enumerate(images)])
    assert [answer.status for answer in answers] == ["succeeded", "failed", "succeeded"]
    assert answers[1].failure is not None and answers[1].failure.stage == "detector"
    assert answers[2].regions is not None and len(answers[2].regions) == 4


def test_no_images_is_no_call(pipeline: VisionPipeline) -> None:
    assert pipeline.run([]) == []


def test_a_masked_crop_is_white_outside() -> None:
    image = Image.new("RGB", (20, 20), BLUE)
    mask = np.zeros((20, 20), np.bool_)
    mask[5:10, 5:10] = True
    crop = crop_segment(image, Segment(mask, (4, 4, 11, 11), 1.0))
    assert crop.size == (7, 7)
    assert crop.getpixel((0, 0)) == (255, 255, 255) and crop.getpixel((3, 3)) == BLUE


def test_masks_are_coco_run_lengths() -> None:
    from pycocotools import mask as coco_mask

    mask = np.zeros((7, 5), np.bool_)
    mask[2:4, 1:5] = True
    encoded = encode_mask(mask)
    decoded = coco_mask.decode({"size": list(encoded.size), "counts": encoded.counts.encode()})
    assert (decoded.astype(bool) == mask).all()


def test_evidence_is_dropped_with_its_reason() -> None:
    box, near = (0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 10.0, 10.0)
    mask = encode_mask(np.ones((2, 2), np.bool_))
    given = record("a").model_copy(
        update={
            "caption": Caption(text="x", match=0.1),
            "regions": [
                Region(box=box, phrase="a dog", score=0.9, match=0.6),
                Region(box=near, phrase="A dog", score=0.9, match=0.9),
                Region(box=box, phrase="a cat", score=0.9, match=0.39),
            ],
            "objects": [
                ObjectMask(box=box, mask=mask, area=4, phrase="a dog", match=0.99),
                ObjectMask(box=box, mask=mask, area=4, phrase="a bone", match=0.51),
                ObjectMask(box=box, mask=mask, area=4, phrase="a bun", match=0.49),
            ],
            "text": [TextLine(box=box, text="WOOF", score=0.9), TextLine(box=box, text="w", score=0.5)],
        }
    )
    kept = keep(given, EvidenceSettings())
    assert [entry.reason for entry in kept.regions or ()] == ["duplicate", None, "low_match"]
    assert [entry.reason for entry in kept.objects or ()] == ["duplicate", None, "low_match"]
    assert [entry.reason for entry in kept.text or ()] == [None, "low_score"]
    doubted = keep(given, EvidenceSettings(region_score=0.95))
    assert {entry.reason for entry in doubted.regions or ()} == {"low_score"}
    assert kept.caption is not None and kept.caption.kept
    assert all(entry.kept == (entry.reason is None) for entry in (*(kept.regions or ()), *(kept.objects or ())))


def test_iou() -> None:
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def test_a_fingerprint_covers_what_decides_and_nothing_else() -> None:
    profile = load_profile("demo", CHECKOUT / "models" / "profiles")
    composer, captioner = profile.stages["composer"], profile.stages["captioner"]

    def changed(name: str, stage: StageSettings) -> Profile:
        return profile.model_copy(update={"stages": {**profile.stages, name: stage}})

    prompt = changed("composer", composer.model_copy(update={"parameters": {"prompt": "other"}}))
    assert prompt.fingerprint("vision") == profile.fingerprint("vision")
    assert prompt.fingerprint("llm") != profile.fingerprint("llm")
    weights = changed("captioner", captioner.model_copy(update={"revision": "other"}))
    assert weights.fingerprint("index") == profile.fingerprint("index")
    assert weights.fingerprint("vision") != profile.fingerprint("vision")
    assert weights.fingerprint("llm") != profile.fingerprint("llm")
    faster = changed("captioner", captioner.model_copy(update={"batch_size": 3}))
    assert faster.fingerprint("llm") == profile.fingerprint("llm")
    larger = profile.model_copy(update={"chunk_size": 7})
    assert larger.fingerprint("index") == profile.fingerprint("index")
    assert larger.fingerprint("vision") != profile.fingerprint("vision")


def test_a_profile_that_is_none_says_so(tmp_path: object) -> None:
    folder = CHECKOUT / "models" / "profiles"
    with pytest.raises(ProfileError, match="there are: demo"):
        load_profile("../demo", folder)
    assert "demo" in profile_names(folder)


def test_where_two_observers_differ_neither_is_kept() -> None:
    here, elsewhere = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)
    mask = encode_mask(np.ones((2, 2), np.bool_))
    given = record("a").model_copy(
        update={
            "regions": [
                Region(box=here, phrase="a dog", match=0.9),
                Region(box=elsewhere, phrase="a cat", match=0.9),
            ],
            "objects": [
                ObjectMask(box=here, mask=mask, area=4, phrase="a bone", match=0.1),
                ObjectMask(box=elsewhere, mask=mask, area=4, phrase="A cat", match=0.95),
            ],
        }
    )
    kept = keep(given, EvidenceSettings(contradiction_iou=0.5))
    assert [entry.reason for entry in kept.regions or ()] == ["contradicted", None]
    assert [entry.reason for entry in kept.objects or ()] == ["low_match", "duplicate"]
    assert [entry.reason for entry in keep(given, EvidenceSettings()).regions or ()] == [None, None]
