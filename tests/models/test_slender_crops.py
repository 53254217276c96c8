"""Crops that are too slender or too small for a model are widened, and a crop that fails costs its own entry only."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.fakes.stages import FakeDetector, FakeMatcher, FakeSegmenter
from models.building import build_stage
from models.chat.asking import LEAST_SIDE
from models.chat.backends import NoAnswer, OpenAICaptioner, _data_url
from models.crops import MOST_STRETCHED, widened
from models.items import CaptionRequest, Failure, Pair, Segment
from models.pipeline import VisionPipeline
from models.writers import CaptionerStage
from strata.components import components_folder
from strata.core import ChatParameters, ImageReference, Record, StageSettings, Status, load_profile
from tests.models.tiny import tiny_models
from tests.models.tiny.tiny_models import make

SETTINGS = StageSettings(backend="test", model="builtin:test", revision="")
PROFILES = components_folder() / "models" / "profiles"
SIZES = ((1, 1), (1, 3000), (3000, 1), (2, 5000), (27, 40), (6000, 29))
WORDS = {"scene_prompt": "What?", "crop_prompt": "What?"}
KINDS: dict[str, tuple[str, str, Callable[..., None], dict[str, Any]]] = {
    "blip2": ("captioner", "blip2", tiny_models.blip2_captioner, {"crop_tokens": 2}),
    "florence2": ("captioner", "florence2", tiny_models.florence, {"crop_tokens": 2}),
    "qwen3_vl": ("captioner", "qwen3_vl", tiny_models.qwen3_vl, WORDS | {"crop_tokens": 2}),
    "itm": ("matcher", "blip2", tiny_models.blip2_matcher, {}),
    "siglip2": ("matcher", "open_clip", tiny_models.siglip2, {}),
    "sam": ("segmenter", "sam", tiny_models.sam, {"points_per_side": 2, "pred_iou_thresh": 0.0}),
    "sam2": ("segmenter", "sam", tiny_models.sam2, {"points_per_side": 2, "pred_iou_thresh": 0.0}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_back_end_takes_crops_of_any_shape(kind: str, tmp_path: Path) -> None:
    stage, backend, maker, parameters = KINDS[kind]
    folder = make(maker, tmp_path)
    built: Any = build_stage(
        stage, StageSettings(backend=backend, model=f"local:{folder}", revision="", parameters=parameters)
    )
    built.load()
    images = [Image.new("RGB", size, "red") for size in SIZES]
    makes: dict[str, Callable[[Image.Image], Any]] = {
        "captioner": lambda image: CaptionRequest(image, "crop"),
        "matcher": lambda image: Pair(image, "a red car"),
    }
    results = built.run([makes.get(stage, lambda image: image)(image) for image in images])
    assert not [result for result in results if isinstance(result, Failure)]
    if stage == "segmenter":  # its masks are those of the image without what was added to it
        for image, segments in zip(images, results, strict=True):
            assert {segment.mask.shape for segment in segments} <= {(image.height, image.width)}


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([50, 1024, 4096]))
def test_a_chat_server_gets_no_image_that_it_refuses(width: int, height: int, longest: int) -> None:
    parameters = ChatParameters(served_model="x", longest_side=longest)
    data = _data_url(Image.new("RGB", (width, height)), parameters)
    sent = Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))
    assert min(sent.size) >= LEAST_SIDE
    assert max(sent.size) <= 2 * MOST_STRETCHED * min(sent.size)
    # a usual image is sent as it is
    if min(width, height) >= LEAST_SIDE and max(width, height) <= min(longest, MOST_STRETCHED * min(width, height)):
        assert sent.size == (width, height)


def test_what_is_added_is_white_and_the_content_keeps_its_scale() -> None:
    wide = widened(Image.new("RGB", (1, 300), "red"))
    assert wide.size == (3, 300)
    assert [wide.getpixel((x, 150)) for x in range(3)] == [(255, 255, 255), (255, 0, 0), (255, 255, 255)]
    same = Image.new("RGB", (30, 300))
    assert widened(same) is same


class _Segmenter(FakeSegmenter):
    """Finds three masks beside one another."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        return [[self._segment(left) for left in (0, 20, 40)] for _ in batch]

    def _segment(self, left: int) -> Segment:
        mask = np.zeros((48, 64), np.bool_)
        mask[:, left : left + 10] = True
        return Segment(mask, (float(left), 0.0, left + 10.0, 48.0), 1.0)


class _Captioner(CaptionerStage):
    """Fails on crops of one colour."""

    name = "captioner"

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[CaptionRequest]) -> list[str]:
        colours = [one.image.getpixel((0, 0)) for one in batch]
        if any(one.kind == "crop" and colour == (0, 0, 255) for one, colour in zip(batch, colours, strict=True)):
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return ["a red car" if colour == (255, 0, 0) else "a lime car" for colour in colours]


class _Matcher(FakeMatcher):
    """Fails on one phrase."""

    def compute(self, batch: Sequence[Pair]) -> list[float | None]:
        if any(pair.phrase == "a lime car" for pair in batch):
            raise ValueError("unlucky")
        return [1.0] * len(batch)


def _image() -> Image.Image:
    image = Image.new("RGB", (64, 48), "red")
    image.paste("lime", (20, 0, 40, 48))
    image.paste("blue", (40, 0, 64, 48))
    return image


def _described(captioner: Any) -> Record:
    stages: dict[str, Any] = {"captioner": captioner, "segmenter": _Segmenter(SETTINGS)}
    stages |= {"detector": FakeDetector(SETTINGS), "matcher": _Matcher(SETTINGS)}
    record = Record(key="0", image=ImageReference(uri="a.jpg", size=1), width=64, height=48)
    return VisionPipeline(load_profile("demo", PROFILES), stages).run([(record, _image())])[0]


def test_a_crop_that_fails_costs_its_object_only() -> None:
    record = _described(_Captioner(SETTINGS))
    assert record.status is Status.SUCCEEDED and record.objects is not None
    told = [(thing.phrase, thing.kept, thing.reason) for thing in record.objects]
    assert told[1:] == [("a lime car", False, "matcher_failed"), (None, False, "captioner_failed")]
    assert told[0][0] == "a red car" and record.objects[0].reason in (None, "contradicted", "duplicate")


class _Chat(OpenAICaptioner):
    """A chat server that has no answer for the second crop of each batch."""

    transient = False

    def load(self) -> None:
        """There is no server."""

    def run(self, batch: Sequence[CaptionRequest]) -> list[str | Failure]:
        failure = Failure("captioner", NoAnswer.__name__, "content_filter", self.transient)
        self.usage = []
        return [failure if one.kind == "crop" and i == 1 else "a red car" for i, one in enumerate(batch)]


@pytest.mark.parametrize("transient", [False, True])
def test_a_server_without_an_answer_for_a_crop_costs_the_image_only_if_it_may_have_one_later(transient: bool) -> None:
    settings = StageSettings(
        backend="openai", model="server:http://127.0.0.1:1/v1", revision="", parameters={"served_model": "x"}
    )
    chat = _Chat(settings)
    chat.transient = transient
    record = _described(chat)
    if transient:
        assert record.status is Status.FAILED and record.failure is not None and record.failure.transient
        return
    assert record.status is Status.SUCCEEDED and record.objects is not None
    assert record.objects[1].reason == "captioner_failed"
