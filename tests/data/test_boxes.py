"""Boxes in the forms of families of models: each comes back to its place, as the family's own code reads it."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from strata.core.layers import LAYERS
from strata.data.boxes import BOX_FORMS, FACTOR, MAX_PIXELS, MIN_PIXELS, BoxName, Frame, PhraseBox, boxes_of, qwen_size

DOG = PhraseBox("a dog", (160.0, 0.0, 320.0, 480.0))
SIDES = st.integers(28, 5000)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("llava", "a dog: [0.25, 0.12, 0.5, 0.88]"),  # the 80 rows above and below that pad the image count
        ("qwen-vl", "<ref>a dog</ref><box>(250,0),(500,999)</box>"),
        ("qwen2.5", '[\n\t{"bbox_2d": [161, 0, 322, 476], "label": "a dog"}\n]'),  # 640 × 480 becomes 644 × 476
        ("qwen3", '[\n\t{"bbox_2d": [250, 0, 500, 1000], "label": "a dog"}\n]'),
        ("internvl", "<ref>a dog</ref><box>[[250, 0, 500, 1000]]</box>"),
    ],
)
def test_the_form_of_each_family(form: BoxName, text: str) -> None:
    assert BOX_FORMS[form].write([DOG], Frame(640, 480)) == text


def test_llava_pads_the_shorter_side() -> None:
    write = BOX_FORMS["llava"].write
    assert write([DOG], Frame(640, 480)) == "a dog: [0.25, 0.12, 0.5, 0.88]"
    assert write([PhraseBox("a", (0, 0, 100, 400))], Frame(100, 400)) == "a: [0.38, 0.0, 0.62, 1.0]"
    assert write([DOG, DOG], Frame(640, 640)) == "\n".join(["a dog: [0.25, 0.0, 0.5, 0.75]"] * 2)


def test_a_line_of_text_has_text_content() -> None:
    text = BOX_FORMS["qwen3"].write([PhraseBox('say "hi"', (0, 0, 10, 5))], Frame(10, 10, quoted=True))
    assert json.loads(text) == [{"bbox_2d": [0, 0, 1000, 500], "text_content": 'say "hi"'}]


@given(width=SIDES, height=SIDES, most=st.sampled_from([MAX_PIXELS, 1_003_520, 100_000]))
def test_the_size_is_that_of_the_processor(width: int, height: int, most: int) -> None:
    if max(width, height) / min(width, height) <= 200:
        found = qwen_size(Frame(width, height, max_pixels=most))
        assert found[::-1] == smart_resize(height, width, FACTOR, MIN_PIXELS, most)


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"\d+(?:\.\d+)?", text)]


@given(data=st.data(), width=SIDES, height=SIDES, form=st.sampled_from(list(BOX_FORMS)))
def test_boxes_come_back(data: st.DataObject, width: int, height: int, form: BoxName) -> None:
    corners = [data.draw(st.floats(-3, side + 3, width=32)) for side in (width, height)] * 2
    box = (0.0, 0.0, corners[2], corners[3])
    frame = Frame(width, height)
    text = BOX_FORMS[form].write([PhraseBox("thing", box)], frame)
    read = np.array(numbers(text.replace("bbox_2d", ""))[-4:])
    # how the family's own code goes back to pixels, and how far rounding may move a corner
    side = max(width, height)
    padding = np.array([(side - width) // 2, (side - height) // 2] * 2)
    sides = np.array([width, height] * 2, dtype=float)
    resized = np.array(qwen_size(frame) * 2, dtype=float)
    pixels, step = {
        "llava": (read * side - padding, 0.01 * side),
        "qwen2.5": (read * sides / resized, sides / resized),
    }.get(form, (read / 1000 * sides, sides / 1000))
    true = np.clip(np.array(box), 0, sides)
    assert np.all(np.abs(pixels - true) <= step * 1.01 + 1e-3)


def test_only_kept_entries_with_words_have_places() -> None:
    entry: dict[str, Any] = {"box": [0.0, 0.0, 5.0, 5.0], "phrase": "a <image>cat\n", "kept": True}
    dropped, empty = {**entry, "kept": False}, {**entry, "phrase": "<image>"}
    assert boxes_of(LAYERS["regions"], [entry, dropped, empty]) == [PhraseBox("a cat", (0.0, 0.0, 5.0, 5.0))]
    assert boxes_of(LAYERS["caption"], {"text": "a", "kept": True}) == [] and boxes_of(LAYERS["objects"], None) == []
