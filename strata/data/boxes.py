"""How families of models write boxes in texts: the phrases of a layer, each with its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from strata.core import Box, LayerSpec, kept
from strata.data.control_tokens import without_control_tokens

BoxName = Literal["llava", "qwen-vl", "qwen2.5", "qwen3", "internvl"]
# Qwen2.5-VL's image processor: sides are multiples of 28 pixels, min_pixels and max_pixels of the model's
# preprocessor_config.json
FACTOR, MIN_PIXELS, MAX_PIXELS = 28, 3_136, 12_845_056


class PhraseBox(NamedTuple):
    """A phrase and its box, in pixels of the upright image. mask: the entry's, as in a part's row, if it has one."""

    phrase: str
    box: Box
    mask: Mapping[str, Any] | None = None


class Frame(NamedTuple):
    """The image that boxes lie in: its sides in pixels.

    quoted: whether the phrases can be read in it. max_pixels: width × height of the largest image that the model's
    processor makes; only Qwen2.5-VL's boxes depend on it.
    """

    width: int
    height: int
    quoted: bool = False
    max_pixels: int = MAX_PIXELS


def boxes_of(layer: LayerSpec, value: Any) -> list[PhraseBox]:
    """The kept entries of a layer's value in a part's row that have words; none of a layer without boxes.

    The words are free of control tokens, and in one line.
    """
    entries = kept(layer.entries(value)) if layer.boxed else []
    found = ((" ".join(without_control_tokens(layer.words_of(entry)).split()), entry) for entry in entries)
    return [PhraseBox(words, tuple(entry["box"]), entry.get("mask")) for words, entry in found if words]


def text_of(layer: LayerSpec, row: Mapping[str, Any]) -> str | None:
    """The layer of a part's row as one text for training, free of control tokens; None if it has no text."""
    text = layer.text_of(row)
    return None if text is None else without_control_tokens(text).strip() or None


def _clipped(box: Box, width: float, height: float) -> list[float]:
    """A box cut to an image: detectors give boxes that reach over its edge by a part of a pixel."""
    sides = (width, height, width, height)
    return [min(max(value, 0.0), side) for value, side in zip(box, sides, strict=True)]


def scaled(box: Box, frame: Frame, width: float, height: float, most: int | None = None) -> list[int]:
    """A box in an image that is resized to other sides, rounded to integers, of which none is above `most`."""
    sides = (width / frame.width, height / frame.height) * 2
    found = [round(value * side) for value, side in zip(_clipped(box, *frame[:2]), sides, strict=True)]
    return found if most is None else [min(most, value) for value in found]


def llava_box(box: Box, frame: Frame) -> list[float]:
    """A box in fractions of the square that LLaVA pads an image to, with two decimals as in its mix665k.

    The shorter side is padded equally on both sides before the fractions are taken (haotian-liu/LLaVA, issue 606;
    `expand2square` in llava/mm_utils.py).
    """
    side = max(frame.width, frame.height)
    left, top = (side - frame.width) // 2, (side - frame.height) // 2
    shifts = (left, top, left, top)
    clipped = _clipped(box, frame.width, frame.height)
    return [round((value + shift) / side, 2) for value, shift in zip(clipped, shifts, strict=True)]


def qwen_size(frame: Frame) -> tuple[int, int]:
    """The sides that Qwen2.5-VL's processor resizes an image to: `smart_resize` of qwen-vl-utils and transformers."""
    width, height = (max(FACTOR, round(side / FACTOR) * FACTOR) for side in frame[:2])
    area, pixels = width * height, frame.width * frame.height
    if area > frame.max_pixels:
        scale = math.sqrt(pixels / frame.max_pixels)
        width, height = (max(FACTOR, math.floor(side / scale / FACTOR) * FACTOR) for side in frame[:2])
    elif area < MIN_PIXELS:
        scale = math.sqrt(MIN_PIXELS / pixels)
        width, height = (math.ceil(side * scale / FACTOR) * FACTOR for side in frame[:2])
    return width, height


def qwen_vl_box(box: Box, frame: Frame) -> str:
    """A box in Qwen-VL's notation: corners in thousandths of the sides, 0 to 999 (arXiv 2308.12966, section 3)."""
    sides = (frame.width, frame.height) * 2
    x1, y1, x2, y2 = (min(999, max(0, int(1000 * value / side))) for value, side in zip(box, sides, strict=True))
    return f"<box>({x1},{y1}),({x2},{y2})</box>"


def _write_llava(places: Sequence[PhraseBox], frame: Frame) -> str:
    return "\n".join(f"{place.phrase}: {llava_box(place.box, frame)}" for place in places)


def _write_qwen_vl(places: Sequence[PhraseBox], frame: Frame) -> str:
    return "; ".join(f"<ref>{place.phrase}</ref>{qwen_vl_box(place.box, frame)}" for place in places)


def _write_qwen25(places: Sequence[PhraseBox], frame: Frame) -> str:
    width, height = qwen_size(frame)
    boxes = [scaled(place.box, frame, width, height) for place in places]
    return bbox_2d(boxes, places, frame)


def _write_qwen3(places: Sequence[PhraseBox], frame: Frame) -> str:
    return bbox_2d([scaled(place.box, frame, 1000, 1000) for place in places], places, frame)


def bbox_2d(boxes: Sequence[Any], places: Sequence[PhraseBox], frame: Frame) -> str:
    """The JSON in which Qwen2.5-VL and Qwen3-VL answer: a list with a line for each box.

    The names of the fields are those of QwenLM/Qwen3-VL, cookbooks/2d_grounding.ipynb and cookbooks/ocr.ipynb.
    """
    name = "text_content" if frame.quoted else "label"
    entries = [{"bbox_2d": box, name: place.phrase} for box, place in zip(boxes, places, strict=True)]
    return "[\n" + ",\n".join("\t" + json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"


def _write_internvl(places: Sequence[PhraseBox], frame: Frame) -> str:
    boxes = (scaled(place.box, frame, 1000, 1000) for place in places)
    return "; ".join(f"<ref>{place.phrase}</ref><box>[{box}]</box>" for place, box in zip(places, boxes, strict=True))


@dataclass(frozen=True)
class BoxForm:
    """How a family writes boxes.

    write: makes the answer. request: what is asked beside the question where things are. markup: the control tokens
    that the answer has.
    """

    write: Callable[[Sequence[PhraseBox], Frame], str]
    request: str
    markup: tuple[str, ...] = ()

    def question(self, layer: LayerSpec) -> str:
        """The user's turn for a layer with boxes."""
        return f"{layer.where} {self.request}".strip()


_JSON = "Report the bounding boxes in JSON format."
_MARKUP = ("<ref>", "</ref>", "<box>", "</box>")
BOX_FORMS: Mapping[BoxName, BoxForm] = MappingProxyType(
    {
        "llava": BoxForm(_write_llava, "Give the bounding box coordinates of each."),
        "qwen-vl": BoxForm(_write_qwen_vl, "", _MARKUP),
        "qwen2.5": BoxForm(_write_qwen25, _JSON),
        "qwen3": BoxForm(_write_qwen3, _JSON),
        # internvl_chat_data_format, "Grounding / Detection Data": integers from 0 to 1000
        "internvl": BoxForm(_write_internvl, "", _MARKUP),
    }
)
