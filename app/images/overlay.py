"""Drawing a record's layers on its image, with Pillow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw

from app.images.decoding import PICTURE_PIXELS
from app.images.lettering import Font, drawable, font_of
from app.images.masks import mask_image
from strata.core import LAYERS, Box, LayerSpec, Mask, Record, Status

Colour = tuple[int, int, int]

MIN_LONG_SIDE = 640  # pixels; smaller images are enlarged, so that labels are readable
# pixels; larger pictures are shrunk, and so are those of more than PICTURE_PIXELS. The canvas is the picture with the
# strip, whose last lines are left out if they do not fit
MAX_LONG_SIDE = 8192
MAX_STRIP_HEIGHT, MAX_CANVAS_PIXELS = 4096, 24_000_000
MAX_CHARACTERS = 5000  # of a text that is drawn
MIN_TEXT, MAX_TEXT = 15.0, 192.0  # pixels; see _text_size
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
READ: Colour = (255, 214, 10)  # recognized text
DROPPED: Colour = (132, 132, 132)
STRIP: Colour = (24, 26, 30)
MASK_OPACITY = 64  # of 255


@dataclass
class _Canvas:
    """The image to draw on, its scale relative to the record's pixels, and the boxes of the labels drawn so far."""

    image: Image.Image
    draw: ImageDraw.ImageDraw
    scale: tuple[float, float]
    font: Font
    small: Font
    line: int
    labels: list[Box] = field(default_factory=list)

    def to_canvas(self, box: Box) -> Box:
        """Convert a box of the record to the canvas's pixels, and clip it to the canvas."""
        width, height = self.image.size
        x1, x2 = (min(max(x * self.scale[0], 0), width - 1) for x in (box[0], box[2]))
        y1, y2 = (min(max(y * self.scale[1], 0), height - 1) for y in (box[1], box[3]))
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


@dataclass(frozen=True)
class _Shape:
    """An entry to draw, with its layer and its colour."""

    layer: LayerSpec
    entry: Any
    colour: Colour

    @property
    def words(self) -> str:
        """The text of its label: recognized text in quotes, else the phrase with its probability."""
        words, shown = self.layer.words_of(self.entry), self.entry.match
        if self.layer.quoted:
            return f'reads "{words}"'
        shown = self.entry.score if shown is None else shown
        return " ".join([words] * bool(words) + [f"{shown:.2f}"] * (shown is not None))


def draw_overlay(image: Image.Image, record: Record) -> Image.Image:
    """Draw masks, boxes and lines of text on an image, and the description in a strip below it.

    The field `drawing` of a LayerSpec determines how the layer is drawn. image: RGB, EXIF-upright, of any size; boxes
    are in pixels of record.width × record.height. Returns an RGB image whose picture has a long side of 640 to 8192
    pixels, and which has at most 24 million pixels. Drawing takes at most 16 bytes for each of these.
    """
    size = record.width or image.width, record.height or image.height
    canvas = _canvas(image, size)
    boxes, masks, quotes = _shapes(record)
    # shapes before labels, so that no shape covers a label; masks before boxes, so that no mask covers a box
    for mask in _kept(masks):
        _draw_mask(canvas, mask.entry.mask, mask.colour)
    dropped = [shape for shape in (*boxes, *masks) if not shape.entry.kept and shape.entry.reason != "duplicate"]
    for shape in dropped:
        _draw_dropped(canvas, shape.entry.box)
    for box in _kept(boxes):
        canvas.draw.rectangle(canvas.to_canvas(box.entry.box), outline=box.colour, width=canvas.line)
    for quote in _kept(quotes):
        _draw_quote(canvas, quote.entry.box)
    # labels by importance, because each is placed in the space that is left; masks only if no box has the same words
    for box in _kept(boxes):
        _label(canvas, box.entry.box, box.words, box.colour)
    for quote in _kept(quotes):
        _label(canvas, quote.entry.box, quote.words, READ, below=True)
    labelled = {box.layer.words_of(box.entry) for box in _kept(boxes)}
    for mask in _kept(masks):
        if mask.layer.words_of(mask.entry) not in labelled and mask.words:
            _label(canvas, mask.entry.box, mask.words, mask.colour)
    for shape in dropped:
        words = f"{shape.words}, {shape.entry.reason or 'dropped'}"
        _label(canvas, shape.entry.box, words, DROPPED, optional=True)
    return _with_strip(canvas, record)


def _shapes(record: Record) -> tuple[list[_Shape], list[_Shape], list[_Shape]]:
    """The entries to draw as boxes, as masks and as quotations. Boxes and masks take the colours in turn."""
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
    factor = min(factor, MAX_LONG_SIDE / max(image.size), math.sqrt(PICTURE_PIXELS / (image.width * image.height)))
    picture = image.convert("RGB")
    if factor != 1:
        scaled = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        # shrunk by a whole number first: the table of weights would have 32 bytes for each pixel of a side
        picture = picture.resize(scaled, Image.Resampling.BICUBIC, reducing_gap=2.0)
    text = _text_size(picture.size)
    return _Canvas(
        image=picture,
        draw=ImageDraw.Draw(picture),
        scale=(picture.width / size[0], picture.height / size[1]),
        font=font_of(text),
        small=font_of(text * 0.8),
        line=max(3, round(text / 6)),
    )


def _text_size(size: tuple[int, int]) -> float:
    """The height of the text in pixels: a 44th of the long side; less where a picture has more than 16 times the width
    that it has height, or the reverse. Lines grow with it.
    """
    return max(MIN_TEXT, min(max(size) / 44, math.sqrt(size[0] * size[1]) / 11, MAX_TEXT))


def _mask_colour(box: Box, index: int, boxes: list[_Shape]) -> Colour:
    """The colour of the kept box that a mask fills (IoU of at least 0.5), so that both look like one object; else
    the one with its index.
    """
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
    # paste the colour through the mask, scaled to the canvas, at a low opacity
    stencil = decoded.resize(canvas.image.size, Image.Resampling.BILINEAR)
    opacity = stencil.point(lambda value: value * MASK_OPACITY // 255)
    canvas.image.paste(Image.new("RGB", canvas.image.size, colour), (0, 0), opacity)


def _draw_dropped(canvas: _Canvas, box: Box) -> None:
    x1, y1, x2, y2 = canvas.to_canvas(box)
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
    x1, y1, x2, y2 = canvas.to_canvas(box)
    # a dark outline keeps the light colour visible on a light background
    canvas.draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=STRIP, width=canvas.line + 2)
    canvas.draw.rectangle((x1, y1, x2, y2), outline=READ, width=canvas.line)


def _label(
    canvas: _Canvas, box: Box, words: str, colour: Colour, *, below: bool = False, optional: bool = False
) -> None:
    """Draw a label at the position around its box with the least overlap. An optional label is left out if it overlaps
    another one.
    """
    font = canvas.small if optional else canvas.font
    # the size of the label: the text with a margin of a few pixels
    words = _fit(" ".join(drawable(words[:MAX_CHARACTERS]).split()), font, canvas.image.width - 8)
    _, _, width, height = font.getbbox(words)
    width, height = math.ceil(width) + 8, math.ceil(height) + 5
    x1, y1, x2, y2 = canvas.to_canvas(box)
    # candidate positions: above the box, below it, inside at its top and at its bottom; clipped to the image
    tops = [y1 - height, y2 + 1, y1 + canvas.line, y2 - height - canvas.line]
    if below or optional:
        tops.insert(0, tops.pop(3 if optional else 1))
    right, bottom = max(canvas.image.width - width, 0), max(canvas.image.height - height, 0)
    corners = [(min(max(x, 0), right), min(max(y, 0), bottom)) for x in (x1, x2 - width) for y in tops]
    areas = [(x, y, x + width, y + height) for x, y in corners]
    # choose the least overlap with the labels drawn before; the first candidate wins a tie
    best = min(areas, key=lambda area: sum(_shared(area, other) for other in canvas.labels))
    if optional and any(_shared(best, other) for other in canvas.labels):
        return
    canvas.labels.append(best)
    canvas.draw.rectangle(best, fill=colour)
    # dark text on light colours
    ink = STRIP if sum(colour) > 400 else (255, 255, 255)
    canvas.draw.text((best[0] + 4, best[1] + 1), words, fill=ink, font=font)


def _shared(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _fit(words: str, font: Font, width: float) -> str:
    """The words; cut, with dots at the end, if they are wider than `width` pixels."""
    words = words[:MAX_CHARACTERS]
    if font.getlength(words) <= width:
        return words
    kept = len(words)
    while kept > 1 and font.getlength(words[:kept] + "...") > width:
        # shorten by a tenth at a time: few measurements, and little is lost
        kept = kept * 9 // 10
    return words[:kept].rstrip() + "..."


def _wrap(words: str, font: Font, width: float) -> list[str]:
    lines: list[str] = []
    for word in words[:MAX_CHARACTERS].split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_fit(word, font, width))
    return lines


def _with_strip(canvas: _Canvas, record: Record) -> Image.Image:
    """Add a dark strip below the picture: the reason of a failed row, or the last layer whose drawing is a strip."""
    strips = (layer for layer in LAYERS.values() if layer.drawing == "strip")
    # the description is the last such layer; the caption is shown if there is none
    texts = [layer.words_of(value) for layer in strips if (value := getattr(record, layer.name)) is not None]
    words = texts[-1] if texts else ""
    if record.failure:
        ending = "filtered by" if record.status is Status.FILTERED else "failed in"
        words = f"{ending} {record.failure.stage}: {record.failure.detail}"
    margin = round(canvas.line * 4)
    lines = _wrap(drawable(words[:MAX_CHARACTERS]), canvas.font, canvas.image.width - 2 * margin)
    if not lines:
        return canvas.image
    step = math.ceil(canvas.font.getbbox("Ag")[3] * 1.35)
    # leave out the lines for which there is no room
    room = min(MAX_STRIP_HEIGHT, MAX_CANVAS_PIXELS // canvas.image.width - canvas.image.height) - 2 * margin
    if len(lines) > max(room // step, 1):
        lines = lines[: max(room // step, 1)]
        lines[-1] = _fit(lines[-1] + " ...", canvas.font, canvas.image.width - 2 * margin)
    whole = Image.new("RGB", (canvas.image.width, canvas.image.height + 2 * margin + step * len(lines)), STRIP)
    whole.paste(canvas.image)
    draw = ImageDraw.Draw(whole)
    for index, line in enumerate(lines):
        draw.text(
            (margin, canvas.image.height + margin + index * step),
            line,
            fill=(240, 240, 240),
            font=canvas.font,
        )
    return whole
