"""The stage contract and the vision pipeline, with fake stages that say what they saw."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.base import GROW_AFTER, Stage, StageBroken, StageUnavailable
from models.boxes import iou
from models.crops import crop_segment, decode_mask, encode_mask
from models.evidence.filter import before_matching, objects_matched, regions_matched, text_judged
from models.items import CaptionRequest, ComposeRequest, Detection, Failure, Pair, ReadLine, Segment
from models.pipeline import LlmPipeline, VisionPipeline, cpu_is_idle
from models.working_size import reduced
from strata.core.profiles import EvidenceSettings, Profile, ProfileError, StageSettings, load_profile, profile_names
from strata.core.records import Caption, ImageReference, ObjectMask, Record, Region, Status, TextLine
from tests.checkout import CHECKOUT
from tests.fakes import FAKE_PROFILE

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


class FakeMemory(Stage[int, int]):
    """Doubles numbers where memory holds them: so many at once, and 9999 not even alone."""

    name: ClassVar[str] = "memory"

    def __init__(self, settings: StageSettings, held: int) -> None:
        super().__init__(settings)
        self.held, self.sizes = held, list[int]()

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[int]) -> list[int]:
        self.sizes.append(len(batch))
        if len(batch) > self.held or 9999 in batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [2 * number for number in batch]


LARGE = SETTINGS.model_copy(update={"batch_size": 16})


def test_what_memory_does_not_hold_is_halved_and_the_size_remembered() -> None:
    stage = FakeMemory(LARGE, held=5)
    assert stage.run(list(range(20))) == [2 * i for i in range(20)]
    assert stage.sizes == [16, 8, 4, 4, 4, 4, 4]
    stage.sizes.clear()
    assert stage.run(list(range(6))) == [2 * i for i in range(6)]
    assert stage.sizes == [4, 2]


def test_the_batch_grows_again_when_memory_is_free_for_long() -> None:
    stage = FakeMemory(LARGE, held=5)
    stage.run(list(range(16)))
    stage.held = 16
    stage.sizes.clear()
    many = 4 * GROW_AFTER + 8 * GROW_AFTER + 40
    assert stage.run(list(range(many))) == [2 * i for i in range(many)]
    assert stage.sizes == [4] * (GROW_AFTER - 4) + [8] * GROW_AFTER + [16] * 3 + [8]
    assert FakeMemory(LARGE, held=16).run(list(range(64))) == [2 * i for i in range(64)]


def test_an_item_that_memory_does_not_hold_alone_is_tried_once_more_with_more_room() -> None:
    stage, rooms = FakeMemory(LARGE, held=16), list[int]()
    stage.make_room = lambda: rooms.append(len(stage.sizes))
    with pytest.raises(StageBroken, match="OutOfMemoryError: CUDA out of memory") as caught:
        stage.run([1, 2, 9999, 4, 5])
    assert caught.value.memory and rooms == [len(stage.sizes) - 1] and stage.sizes[-2:] == [1, 1]


def test_room_that_is_made_is_used() -> None:
    stage = FakeMemory(SETTINGS, held=0)
    stage.make_room = lambda: setattr(stage, "held", 1)
    assert stage.run([1, 2, 3]) == [2, 4, 6]


class FakePreparer(Stage[int, int]):
    """Adds one ahead of doubling; 13 cannot be prepared. A batch is computed only once the next one is prepared."""

    name: ClassVar[str] = "preparer"

    def load(self) -> None:
        pass

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.prepared: dict[int, threading.Event] = {first: threading.Event() for first in range(0, 12, 4)}

    def prepare(self, batch: Sequence[int]) -> list[int]:
        if batch[0] in self.prepared:
            self.prepared[batch[0]].set()
        if 13 in batch:
            raise ValueError("unlucky")
        return [number + 1 for number in batch]

    def compute(self, batch: Sequence[int]) -> list[int]:
        following = self.prepared.get(batch[0] + 3)
        assert following is None or following.wait(120), "the next batch was not prepared meanwhile"
        return [2 * number for number in batch]


def test_the_next_batch_is_prepared_while_one_is_computed() -> None:
    assert FakePreparer(SETTINGS).run(list(range(12))) == [2 * (i + 1) for i in range(12)]


def test_an_item_that_cannot_be_prepared_fails_alone() -> None:
    answers = FakePreparer(SETTINGS).run([20, 13, 21, 22, 23])
    assert answers == [42, Failure("preparer", "ValueError", "unlucky"), 44, 46, 48]


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
    """A mask for every ten pixels of width, the upper half of them."""

    name: ClassVar[str] = "segmenter"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        found = []
        for image in batch:
            found.append(list[Segment]())
            for left in range(0, image.width // 10 * 10, 10):
                mask = np.zeros((image.height, image.width), np.bool_)
                mask[: image.height // 2, left : left + 10] = True
                found[-1].append(Segment(mask, (left, 0, left + 10, image.height // 2), 0.8))
        return found


class FakeOcr(Stage[Image.Image, list[ReadLine]]):
    """Reads the width; images of 66 and of 77 pixels break it."""

    name: ClassVar[str] = "ocr"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[Image.Image]) -> list[list[ReadLine]]:
        if any(image.width in (66, 77) for image in batch):
            raise RuntimeError("nothing to read")
        return [[ReadLine(str(image.width), 0.9, (0, 0, 5, 5))] for image in batch]


class FakeMatcher(Stage[Pair, float]):
    """1 where the phrase holds the colour of the crop."""

    name: ClassVar[str] = "matcher"

    def load(self) -> None:
        pass

    def compute(self, batch: Sequence[Pair]) -> list[float]:
        return [float(str(colour_of(pair.crop)) in pair.phrase) for pair in batch]


def pipeline_of(settings: StageSettings) -> VisionPipeline:
    stages = (FakeCaptioner, FakeDetector, FakeSegmenter, FakeOcr, FakeMatcher)
    return VisionPipeline(FAKE_PROFILE, {stage.name: stage(settings) for stage in stages})


@pytest.fixture
def pipeline() -> VisionPipeline:
    return pipeline_of(SETTINGS)


def record(key: str) -> Record:
    return Record(key=key, image=ImageReference(uri="a.tar", size=1))


def striped(number: int) -> tuple[Image.Image, list[Colour]]:
    """An image of one to four stripes ten pixels wide, and their colours, which no other image has."""
    colours = [(number * 20 % 250, 60 * stripe + 10, number * 20 // 250) for stripe in range(1 + number % 4)]
    image = Image.new("RGB", (10 * len(colours), 20))
    for stripe, colour in enumerate(colours):
        image.paste(colour, (10 * stripe, 0, 10 * stripe + 10, 20))
    return image, colours


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("micro_batch", [1, 5, 23])
@pytest.mark.parametrize("beside", [False, True])
def test_crops_and_phrases_never_change_places(batch_size: int, micro_batch: int, beside: bool) -> None:
    pipeline = pipeline_of(SETTINGS.model_copy(update={"batch_size": batch_size}))
    pipeline.parallel = beside
    numbers = list(range(23))
    random.Random(batch_size * micro_batch).shuffle(numbers)
    answers = []
    for start in range(0, len(numbers), micro_batch):
        some = numbers[start : start + micro_batch]
        answers += pipeline.run([(record(str(number)), striped(number)[0]) for number in some])
    for number, answer in zip(numbers, answers, strict=True):
        image, colours = striped(number)
        assert answer.key == str(number) and answer.status is Status.SUCCEEDED
        assert answer.caption == Caption(text=f"scene {colour_of(image)}", match=1.0)
        assert [region.phrase for region in answer.regions or ()] == [str(colour) for colour in colours]
        assert [thing.phrase for thing in answer.objects or ()] == [f"crop {colour}" for colour in colours]
        assert [thing.box[0] for thing in answer.objects or ()] == [10 * stripe for stripe in range(len(colours))]
        assert all(entry.match == 1.0 for entry in (*(answer.regions or ()), *(answer.objects or ())))
        assert answer.text is not None and answer.text[0].text == str(image.width)
        assert set(answer.seconds) == {"captioner", "detector", "segmenter", "ocr", "matcher"}


@pytest.mark.parametrize(("across", "down"), [(10, 10), (7, 9)])
def test_a_very_large_image_is_computed_at_a_smaller_size(
    pipeline: VisionPipeline, monkeypatch: pytest.MonkeyPatch, across: int, down: int
) -> None:
    image, _ = striped(3)
    large = image.resize((across * image.width, down * image.height), Image.Resampling.NEAREST)
    (plain,) = pipeline.run([(record("0"), image)])
    monkeypatch.setattr("models.working_size.MOST_PIXELS", image.width * image.height)
    sized = record("0").model_copy(update={"width": large.width, "height": large.height})
    (answer,) = pipeline.run([(sized, large)])
    # the same, if the image is shrunk where it is decoded
    (shrunk,) = pipeline.run([(sized, reduced(sized, large)[1])])
    assert shrunk.model_copy(update={"seconds": answer.seconds}) == answer
    assert (answer.width, answer.height) == large.size
    assert answer.text and int(answer.text[0].text) <= image.width  # what the OCR saw
    for thing in (*(answer.regions or ()), *(answer.objects or ()), *answer.text):
        x1, y1, x2, y2 = thing.box
        assert 0 <= x1 <= x2 <= large.width and 0 <= y1 <= y2 <= large.height
    if (across, down) != (10, 10):
        return
    # an even reduction finds the same, ten times as large
    assert plain.objects and answer.objects and len(answer.objects) == len(plain.objects)
    for small, found in zip(plain.objects, answer.objects, strict=True):
        assert found.box == tuple(10 * side for side in small.box)
        assert found.area == 100 * small.area and found.mask.size == (large.height, large.width)
        assert (found.phrase, found.match) == (small.phrase, small.match)


def test_an_image_that_fails_a_stage_is_a_failed_row(pipeline: VisionPipeline) -> None:
    images = [Image.new("RGB", (width, 20), RED) for width in (30, 66, 40, 77)]
    answers = pipeline.run([(record(str(i)), image) for i, image in enumerate(images)])
    assert [answer.status for answer in answers] == ["succeeded", "failed", "succeeded", "failed"]
    # of two stages that fail, the one on the way to the record is told, whichever was faster
    assert [answer.failure and answer.failure.stage for answer in answers] == [None, "detector", None, "ocr"]
    assert answers[2].regions is not None and len(answers[2].regions) == 4


def without(pipeline: VisionPipeline, *names: str) -> VisionPipeline:
    """The pipeline without some stages."""
    pipeline.stages = {name: stage for name, stage in pipeline.stages.items() if name not in names}
    return pipeline


MADE_BY = {"captioner": "caption", "detector": "regions", "segmenter": "objects", "ocr": "text"}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("number", range(32))
def test_every_stage_is_optional(pipeline: VisionPipeline, number: int, beside: bool) -> None:
    missing = [name for bit, name in enumerate(pipeline.stages) if number & 1 << bit]
    pipeline.parallel = beside
    image, colours = striped(3)
    (answer,) = without(pipeline, *missing).run([(record("3"), image)])
    assert answer.status is Status.SUCCEEDED
    assert set(answer.seconds) == set(pipeline.stages)
    made = {name for name, layer in MADE_BY.items() if getattr(answer, layer) is not None}
    assert made == set(MADE_BY) - set(missing)
    phrases = {thing.phrase for thing in answer.objects or ()}
    assert phrases == (
        set() if "segmenter" in missing else {None} if "captioner" in missing else {*map(crop_of, colours)}
    )
    asked = [answer.caption, *(answer.regions or ()), *(thing for thing in answer.objects or () if thing.phrase)]
    assert all(entry.kept and (entry.match is None) == ("matcher" in missing) for entry in asked if entry)
    if "segmenter" in missing:
        assert pipeline.bound(answer).keys() == {"captioner"} - set(missing)


def crop_of(colour: Colour) -> str:
    return f"crop {colour}"


def test_without_a_matcher_scores_decide(pipeline: VisionPipeline) -> None:
    class SureDetector(FakeDetector):
        def compute(self, batch: Sequence[Image.Image]) -> list[list[Detection]]:
            found = [("a dog", 0.4), ("A dog", 0.8), ("a cat", 0.1)]
            return [[Detection((0, 0, 10, 10), phrase, score) for phrase, score in found] for _ in batch]

    pipeline.stages["detector"] = SureDetector(SETTINGS)
    pipeline.evidence = EvidenceSettings(region_score=0.3)
    (answer,) = without(pipeline, "matcher").run([(record("0"), Image.new("RGB", (10, 20), RED))])
    assert [region.reason for region in answer.regions or ()] == ["duplicate", None, "low_score"]


def test_a_stage_of_whole_images_may_answer_the_entries_of_its_layer(pipeline: VisionPipeline) -> None:
    class EntryOcr(FakeOcr):
        def compute(self, batch: Sequence[Image.Image]) -> list[Any]:
            return [[TextLine(box=(0, 0, 5, 5), text="OPEN", score=0.9)] for _ in batch]

    pipeline.stages["ocr"] = EntryOcr(SETTINGS)
    (answer,) = pipeline.run([(record("0"), Image.new("RGB", (10, 20), RED))])
    assert answer.text == [TextLine(box=(0, 0, 5, 5), text="OPEN", score=0.9)]


def test_without_a_composer_the_records_pass_unchanged() -> None:
    stages = {name: stage for name, stage in FAKE_PROFILE.stages.items() if name != "composer"}
    pipeline = LlmPipeline(FAKE_PROFILE.model_copy(update={"stages": stages}))
    pipeline.load()
    records = [record("a"), record("b")]
    assert pipeline.run([ComposeRequest(one) for one in records]) == records and pipeline.bound(records[0]) == {}


def test_ocr_reads_beside_models_that_leave_the_cpu_idle(pipeline: VisionPipeline) -> None:
    pipeline.parallel = True
    matched = threading.Event()

    class LastOcr(FakeOcr):
        def compute(self, batch: Sequence[Image.Image]) -> list[list[ReadLine]]:
            assert matched.wait(120), "the matcher waits for ocr"
            return super().compute(batch)

    class SayingMatcher(FakeMatcher):
        def compute(self, batch: Sequence[Pair]) -> list[float]:
            matched.set()
            return super().compute(batch)

    pipeline.stages |= {"ocr": LastOcr(SETTINGS), "matcher": SayingMatcher(SETTINGS)}
    (answer,) = pipeline.run([(record("0"), Image.new("RGB", (30, 20), RED))])
    assert answer.status is Status.SUCCEEDED and answer.text


def test_the_detector_goes_beside_the_segmenter_on_models_that_leave_the_cpu_idle(pipeline: VisionPipeline) -> None:
    pipeline.parallel = True
    begun, segmented = threading.Event(), threading.Event()

    class SlowDetector(FakeDetector):
        def compute(self, batch: Sequence[Image.Image]) -> list[list[Detection]]:
            begun.set()
            assert segmented.wait(120), "the segmenter waits for the detector"
            return super().compute(batch)

    class WaitingSegmenter(FakeSegmenter):
        def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
            assert begun.wait(120), "the detector waits for the segmenter"
            segmented.set()
            return super().compute(batch)

    pipeline.stages |= {"detector": SlowDetector(SETTINGS), "segmenter": WaitingSegmenter(SETTINGS)}
    (answer,) = pipeline.run([(record("0"), Image.new("RGB", (30, 20), RED))])
    assert answer.status is Status.SUCCEEDED and answer.regions and answer.objects


def test_ocr_takes_no_turns_of_models_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("demo", CHECKOUT / "models" / "profiles")
    captioner = profile.stages["captioner"]
    served = captioner.model_copy(update={"model": "server:http://127.0.0.1:1/v1#any"})
    remote = profile.model_copy(update={"stages": profile.stages | {"captioner": served}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not cpu_is_idle(profile, "vision")
    assert cpu_is_idle(remote, "vision") and not cpu_is_idle(remote, "llm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cpu_is_idle(profile, "vision")


def test_no_images_is_no_call(pipeline: VisionPipeline) -> None:
    assert pipeline.run([]) == []


def test_a_masked_crop_is_white_outside() -> None:
    image = Image.new("RGB", (20, 20), BLUE)
    mask = np.zeros((20, 20), np.bool_)
    mask[5:10, 5:10] = True
    crop = crop_segment(image, Segment(mask, (4, 4, 11, 11), 1.0))
    assert crop.size == (7, 7)
    assert crop.getpixel((0, 0)) == (255, 255, 255) and crop.getpixel((3, 3)) == BLUE
    beyond = crop_segment(image, Segment(mask, (4, 4, 25, 25), 1.0))
    assert beyond.size == (16, 16) and beyond.getpixel((15, 15)) == (255, 255, 255)


def test_masks_are_coco_run_lengths() -> None:
    from pycocotools import mask as coco_mask

    mask = np.zeros((7, 5), np.bool_)
    mask[2:4, 1:5] = True
    encoded = encode_mask(mask)
    decoded = coco_mask.decode({"size": list(encoded.size), "counts": encoded.counts.encode()})
    assert (decoded.astype(bool) == mask).all()
    assert (decode_mask(encoded) == mask).all() and decode_mask(encoded).dtype == np.bool_


def keep(noted: Record, settings: EvidenceSettings) -> Record:
    """All steps of the filter; the matcher says of an entry what `noted` has as its match."""

    def asked(layer: str) -> list[float]:
        entries = zip(getattr(noted, layer) or (), getattr(left, layer) or (), strict=True)
        return [before.match for before, now in entries if now.kept]

    left = before_matching(noted, settings)
    left = regions_matched(
        left, [*([noted.caption.match or 0.0] if noted.caption else []), *asked("regions")], settings
    )
    left = objects_matched(left, asked("objects"), settings)
    return text_judged(left, settings)


def test_evidence_is_dropped_with_its_reason() -> None:
    box, near = (0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 10.0, 10.0)
    mask = encode_mask(np.ones((2, 2), np.bool_))
    noted = record("a").model_copy(
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
    kept = keep(noted, EvidenceSettings())
    assert [entry.reason for entry in kept.regions or ()] == ["duplicate", None, "low_match"]
    assert [entry.reason for entry in kept.objects or ()] == ["duplicate", None, "low_match"]
    assert [entry.reason for entry in kept.text or ()] == [None, "low_score"]
    doubted = keep(noted, EvidenceSettings(region_score=0.95))
    assert {entry.reason for entry in doubted.regions or ()} == {"low_score"}
    assert kept.caption is not None and kept.caption.kept
    assert all(entry.kept == (entry.reason is None) for entry in (*(kept.regions or ()), *(kept.objects or ())))


def test_a_second_opinion_drops_what_the_first_kept_and_suppresses_nothing() -> None:
    box, near = (0.0, 0.0, 10.0, 10.0), (1.0, 0.0, 10.0, 10.0)
    regions = [
        Region(box=box, phrase="a dog"),
        Region(box=near, phrase="a dog"),
        Region(box=box, phrase="a cat"),
        Region(box=box, phrase="a bun"),
    ]
    noted = record("a").model_copy(update={"caption": Caption(text="x"), "regions": regions})
    matches, second = [0.9, 0.9, 0.6, 0.7, 0.1], [None, 0.4, 0.8, None, 0.9]
    settings = EvidenceSettings(second_region=0.5)
    kept = regions_matched(noted, matches, settings, second).regions or ()
    # the better match is dropped by the second opinion, and so is no rival of the other; what the second matcher cannot
    # judge stays; what the first one drops keeps its own reason
    assert [entry.reason for entry in kept] == ["low_second_match", None, None, "low_match"]
    assert [entry.match for entry in kept] == [0.9, 0.6, 0.7, 0.1]
    # without a threshold nobody is asked, and without a matcher nobody answers
    assert [entry.reason for entry in regions_matched(noted, matches, EvidenceSettings(), second).regions or ()] == [
        None,
        "duplicate",
        None,
        "low_match",
    ]
    assert all(
        entry.kept for entry in regions_matched(noted, None, settings, None).regions or () if entry.phrase != "a dog"
    )


PLACES: list[tuple[float, float, float, float]] = [(0, 0, 10, 10), (1, 0, 10, 10), (4, 0, 14, 10), (50, 0, 60, 10)]
NOTED = {
    "box": st.sampled_from(PLACES),
    "phrase": st.sampled_from(["a dog", "A dog", "a cat"]),
    "match": st.sampled_from([0.1, 0.45, 0.55, 0.9]),
}
ONE_MASK = encode_mask(np.ones((2, 2), np.bool_))


@given(
    regions=st.lists(st.builds(Region, **NOTED, score=st.sampled_from([0.2, 0.9])), max_size=5),
    objects=st.lists(st.builds(ObjectMask, **NOTED, mask=st.just(ONE_MASK), area=st.just(4)), max_size=5),
    contradiction=st.sampled_from([None, 0.3, 0.8]),
)
def test_what_the_matcher_is_not_asked_about_would_not_have_been_kept(
    regions: list[Region], objects: list[ObjectMask], contradiction: float | None
) -> None:
    settings = EvidenceSettings(region_score=0.5, contradiction_iou=contradiction)
    left = keep(record("a").model_copy(update={"regions": regions, "objects": objects}), settings)

    def said(entry: Region | ObjectMask) -> str:
        return (entry.phrase or "").lower()

    def stands(entry: Region | ObjectMask, others: Sequence[Region | ObjectMask], threshold: float) -> bool:
        disputed = contradiction is not None and any(
            iou(entry.box, o.box) >= contradiction and said(entry) != said(o) for o in others
        )
        return (entry.score is None or entry.score >= 0.5) and (entry.match or 0) >= threshold and not disputed

    # with every probability known: the best first, regions before objects
    standing: list[Region | ObjectMask] = []
    standing += sorted((r for r in regions if stands(r, objects, 0.4)), key=lambda r: -(r.match or 0))
    standing += sorted((o for o in objects if stands(o, regions, 0.5)), key=lambda o: -(o.match or 0))
    kept: list[Region | ObjectMask] = []
    for entry in standing:
        if not any(said(o) == said(entry) and iou(o.box, entry.box) >= 0.6 for o in kept):
            kept.append(entry)
    now = [*(left.regions or ()), *(left.objects or ())]
    expected = [any(entry is one for one in kept) for entry in (*regions, *objects)]
    assert [entry.kept for entry in now] == expected
    assert all(entry.match is not None for entry in now if entry.kept)


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
    with pytest.raises(ProfileError, match="there are: api, demo"):
        load_profile("../demo", folder)
    assert "demo" in profile_names(folder)


def test_where_two_observers_differ_neither_is_kept() -> None:
    here, elsewhere = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)
    mask = encode_mask(np.ones((2, 2), np.bool_))
    noted = record("a").model_copy(
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
    kept = keep(noted, EvidenceSettings(contradiction_iou=0.5))
    assert [entry.reason for entry in kept.regions or ()] == ["contradicted", None]
    assert [entry.reason for entry in kept.objects or ()] == ["contradicted", "duplicate"]
    assert [entry.reason for entry in keep(noted, EvidenceSettings()).regions or ()] == [None, None]
