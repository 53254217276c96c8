"""The layers of a record drawn on its picture, for the eye: Pillow only, with Pillow's own font."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from app.masks import mask_image
from strata.core import LAYERS, Box, LayerSpec, Mask, Record, Status

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MIN_LONG_SIDE = 640
COLOURS: tuple[Colour, ...] = (
    (230, 57, 70),
    (29, 120, 200),
    (42, 157, 82),
    (244, 140, 6),
    (131, 56, 196),
    (214, 51, 132),
    (0, 140, 140),
    (140, 100, 20),
)
READ: Colour = (255, 214, 10)  # text that can be read in the picture
DROPPED: Colour = (132, 132, 132)
STRIP: Colour = (24, 26, 30)
MASK_OPACITY = 64  # of 255


@dataclass
class _Canvas:
    """The picture being drawn on, its scale against the record's pixels, and where labels already lie."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    scale: tuple[float, float]
    font: Font
    small: Font
    line: int
    labels: list[Box] = field(default_factory=list)

    def place(self, box: Box) -> Box:
        """A record's box on the canvas, inside it and at least one pixel wide and high."""
        width, height = self.image.size
        x1, x2 = (min(max(x * self.scale[0], 0), width - 1) for x in (box[0], box[2]))
        y1, y2 = (min(max(y * self.scale[1], 0), height - 1) for y in (box[1], box[3]))
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


@dataclass(frozen=True)
class _Shape:
    """An entry of a layer to be drawn: its layer, and a colour of its own."""

    layer: LayerSpec
    entry: Any
    colour: Colour

    @property
    def words(self) -> str:
        """The words of its label: a quotation of what can be read, else the phrase and its probability."""
        words, shown = self.layer.words_of(self.entry), self.entry.match
        if self.layer.quoted:
            return f'reads "{words}"'
        shown = self.entry.score if shown is None else shown
        return " ".join([words] * bool(words) + [f"{shown:.2f}"] * (shown is not None))


def draw_overlay(image: Image.Image, record: Record) -> Image.Image:
    """The picture with masks, boxes and lines of text, and the description in a strip below it.

    How a layer's entries are drawn is said by the `drawing` of its LayerSpec. image: RGB, EXIF-upright; boxes are in
    the pixels of record.width and height, whatever its size. The answer is RGB, at least 640 pixels on the long side
    of the picture.
    """
    size = record.width or image.width, record.height or image.height
    canvas = _canvas(image, size)
    boxes, masks, quotes = _shapes(record)
    # masks first, then dropped entries, then every box, so that no box runs through a label
    for mask in _kept(masks):
        _draw_mask(canvas, mask.entry.mask, mask.colour)
    dropped = [shape for shape in (*boxes, *masks) if not shape.entry.kept and shape.entry.reason != "duplicate"]
    for shape in dropped:
        _draw_dropped(canvas, shape.entry.box)
    for box in _kept(boxes):
        canvas.draw.rectangle(canvas.place(box.entry.box), outline=box.colour, width=canvas.line)
    for quote in _kept(quotes):
        _draw_quote(canvas, quote.entry.box)
    # labels by importance: a later one gets the room that is left; masks only where no box has the same words
    for box in _kept(boxes):
        _label(canvas, box.entry.box, box.words, box.colour)
    for quote in _kept(quotes):
        _label(canvas, quote.entry.box, quote.words, READ, below=True)
    said = {box.layer.words_of(box.entry) for box in _kept(boxes)}
    for mask in _kept(masks):
        if mask.layer.words_of(mask.entry) not in said and mask.words:
            _label(canvas, mask.entry.box, mask.words, mask.colour)
    for shape in dropped:
        words = f"{shape.words}, {shape.entry.reason or 'dropped'}"
        _label(canvas, shape.entry.box, words, DROPPED, optional=True)
    return _with_strip(canvas, record)


def _shapes(record: Record) -> tuple[list[_Shape], list[_Shape], list[_Shape]]:
    """What is drawn as a box, as a mask and as a quotation. Boxes and masks have a colour each, in order."""
    found: dict[str, list[tuple[LayerSpec, Any]]] = {"box": [], "mask": [], "quote": []}
    for layer in LAYERS.values():
        if layer.drawing in found:
            found[layer.drawing] += [(layer, entry) for entry in layer.entries(getattr(record, layer.name))]
    boxes = [_Shape(layer, entry, COLOURS[i % len(COLOURS)]) for i, (layer, entry) in enumerate(found["box"])]
    masks = [
        _Shape(layer, entry, _mask_colour(entry.box, len(boxes) + i, boxes))
        for i, (layer, entry) in enumerate(found["mask"])
    ]
    return boxes, masks, [_Shape(layer, entry, READ) for layer, entry in found["quote"]]


def _kept(shapes: list[_Shape]) -> list[_Shape]:
    return [shape for shape in shapes if shape.entry.kept]


def _canvas(image: Image.Image, size: tuple[int, int]) -> _Canvas:
    factor = max(1.0, MIN_LONG_SIDE / max(image.size))
    picture = image.convert("RGB")
    if factor > 1:
        scaled = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    text = max(15.0, max(picture.size) / 44)
    return _Canvas(
        image=picture,
        draw=ImageDraw.Draw(picture),
        scale=(picture.width / size[0], picture.height / size[1]),
        font=ImageFont.load_default(text),
        small=ImageFont.load_default(text * 0.8),
        line=max(3, round(text / 6)),
    )


def _mask_colour(box: Box, index: int, boxes: list[_Shape]) -> Colour:
    """The colour of the kept box that a mask fills, so that mask and box read as one thing; else one by its index."""
    overlaps = [(_iou(box, shape.entry.box), i) for i, shape in enumerate(boxes) if shape.entry.kept]
    best, i = max(overlaps, default=(0.0, 0))
    return boxes[i].colour if best >= 0.5 else COLOURS[index % len(COLOURS)]


def _iou(a: Box, b: Box) -> float:
    shared = _shared(a, b)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared) if areas > shared else 0.0


def _draw_mask(canvas: _Canvas, mask: Mask, colour: Colour) -> None:
    decoded = mask_image(mask)
    if decoded is None:
        return
    stencil = decoded.resize(canvas.image.size, Image.Resampling.BILINEAR)
    opacity = stencil.point(lambda value: value * MASK_OPACITY // 255)
    canvas.image.paste(Image.new("RGB", canvas.image.size, colour), (0, 0), opacity)


def _draw_dropped(canvas: _Canvas, box: Box) -> None:
    x1, y1, x2, y2 = canvas.place(box)
    for start, end in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        _dashes(canvas.draw, start, end, DROPPED)


def _dashes(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: Colour) -> None:
    length = math.dist(start, end)
    count = max(1, int(length / 10))
    for step in range(count):
        a, b = step / count, (step + 0.55) / count
        ends = [tuple(s + (e - s) * part for s, e in zip(start, end, strict=True)) for part in (a, b)]
        draw.line([(ends[0][0], ends[0][1]), (ends[1][0], ends[1][1])], fill=colour, width=2)


def _draw_quote(canvas: _Canvas, box: Box) -> None:
    x1, y1, x2, y2 = canvas.place(box)
    # a dark rim keeps the light colour visible on light signs
    canvas.draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=STRIP, width=canvas.line + 2)
    canvas.draw.rectangle((x1, y1, x2, y2), outline=READ, width=canvas.line)


def _label(
    canvas: _Canvas, box: Box, words: str, colour: Colour, *, below: bool = False, optional: bool = False
) -> None:
    """A label at the first free place around its box; one that is optional may be left out."""
    font = canvas.small if optional else canvas.font
    words = _fit(" ".join(words.split()), font, canvas.image.width - 8)
    _, _, width, height = font.getbbox(words)
    width, height = math.ceil(width) + 8, math.ceil(height) + 5
    x1, y1, x2, y2 = canvas.place(box)
    tops = [y1 - height, y2 + 1, y1 + canvas.line, y2 - height - canvas.line]
    if below or optional:
        tops.insert(0, tops.pop(3 if optional else 1))
    right, bottom = max(canvas.image.width - width, 0), max(canvas.image.height - height, 0)
    spots = [(min(max(x, 0), right), min(max(y, 0), bottom)) for x in (x1, x2 - width) for y in tops]
    places = [(x, y, x + width, y + height) for x, y in spots]
    best = min(places, key=lambda place: sum(_shared(place, other) for other in canvas.labels))
    if optional and any(_shared(best, other) for other in canvas.labels):
        return
    canvas.labels.append(best)
    canvas.draw.rectangle(best, fill=colour)
    ink = STRIP if sum(colour) > 400 else (255, 255, 255)
    canvas.draw.text((best[0] + 4, best[1] + 1), words, fill=ink, font=font)


def _shared(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _fit(words: str, font: Font, width: float) -> str:
    """The words, cut with dots where they are wider than `width` pixels."""
    if font.getlength(words) <= width:
        return words
    kept = len(words)
    while kept > 1 and font.getlength(words[:kept] + "...") > width:
        kept = kept * 9 // 10
    return words[:kept].rstrip() + "..."


def _wrap(words: str, font: Font, width: float) -> list[str]:
    lines: list[str] = []
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_fit(word, font, width))
    return lines


def _with_strip(canvas: _Canvas, record: Record) -> Image.Image:
    """The picture with a dark strip below it: why there are no layers, or the last of the layers drawn as a strip."""
    strips = (layer for layer in LAYERS.values() if layer.drawing == "strip")
    texts = [layer.words_of(value) for layer in strips if (value := getattr(record, layer.name)) is not None]
    words = texts[-1] if texts else ""
    if record.failure:
        ending = "filtered by" if record.status is Status.FILTERED else "failed in"
        words = f"{ending} {record.failure.stage}: {record.failure.detail}"
    margin = round(canvas.line * 4)
    lines = _wrap(words, canvas.font, canvas.image.width - 2 * margin)
    if not lines:
        return canvas.image
    step = math.ceil(canvas.font.getbbox("Ag")[3] * 1.35)
    whole = Image.new("RGB", (canvas.image.width, canvas.image.height + 2 * margin + step * len(lines)), STRIP)
    whole.paste(canvas.image)
    draw = ImageDraw.Draw(whole)
    for place, line in enumerate(lines):
        draw.text(
            (margin, canvas.image.height + margin + place * step),
            line,
            fill=(240, 240, 240),
            font=canvas.font,
        )
    return whole
