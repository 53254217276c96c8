"""Lines of text in one image: which of them are read, and in which batches, so that an image costs a bounded amount.

PP-OCR's recognizer gets each line with a height of 48 pixels, so the width of its input says what a line costs: about
0.1 ms a pixel on one CPU core, and 2 kB of memory a pixel for the probabilities of 18,710 characters. rapidocr bounds
neither a line's width nor their number: 136 lines of 1500×9 pixels were 8,000 pixels wide, and took minutes and 3 GiB.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from rapidocr.ch_ppocr_rec.typings import TextRecInput, TextRecOutput

log = logging.getLogger(__name__)

LINE_HEIGHT = 48  # pixels; the input height of PP-OCR's recognizer
WIDEST = 2400  # pixels; a longer line is squeezed. A page's lines of 100 letters are about 2,000 pixels wide
MOST_AT_ONCE = 16  # lines in one call of the recognizer
WIDTH_AT_ONCE = (
    MOST_AT_ONCE * 320
)  # pixels; the width of one call's lines together: 16 lines of PaddleOCR's usual width
WIDTH_OF_IMAGE = 128_000  # pixels; that of an image's lines together: 53 of the widest, 800 short ones in the demo
CUT_OUT = 16_000_000  # pixels that an image's lines have together; boxes of lines may overlap

Pixels = np.typing.NDArray[np.uint8]
Numbers = np.typing.NDArray[Any]


class Largest:
    """Takes the place of rapidocr's post-processing of the detector: keeps what may be read, the largest letters first.

    found: the post-processing itself. narrowest: pixels to which each line is padded.
    """

    def __init__(self, found: Callable[..., tuple[Numbers, list[float]]], narrowest: int) -> None:
        self._found, self._narrowest = found, narrowest

    def __call__(self, *answer: Any) -> tuple[Numbers, list[float]]:
        """The outlines (lines, 4, 2) in pixels and their scores, of at most WIDTH_OF_IMAGE and CUT_OUT together."""
        boxes, scores = self._found(*answer)
        if len(boxes) == 0:
            return boxes, scores
        # each line's size; one that is higher than wide is turned by rapidocr (its limit of 1.5 is not needed here)
        sides = np.linalg.norm(boxes[:, :2] - boxes[:, 1:3], axis=2)
        long, short = sides.max(axis=1), np.maximum(sides.min(axis=1), 1)
        widths = np.clip(LINE_HEIGHT * long / short, self._narrowest, max(WIDEST, self._narrowest))
        # the first lines by size whose sums stay within the bounds, then in the detector's order again
        order = np.argsort(-short, kind="stable")
        fits = (np.cumsum(widths[order]) <= WIDTH_OF_IMAGE) & (np.cumsum((long * short)[order]) <= CUT_OUT)
        kept = np.sort(order[fits])
        if len(kept) < len(boxes):
            log.debug(
                "%d of %d lines of text are too much for one image and not read", len(boxes) - len(kept), len(boxes)
            )
        return boxes[kept], [scores[i] for i in kept]


def recognized(recognizer: Any, progress: Callable[[], None], lines: Sequence[Pixels]) -> Any:
    """Takes the place of rapidocr's `recognize_txt`: the texts of lines (H, W, 3), in batches of bounded size.

    progress: is called before each batch.
    """
    read: dict[int, tuple[str, float]] = {}
    for batch in batches([_width(line) for line in lines], recognizer.rec_image_shape[2]):
        progress()
        answer = recognizer(TextRecInput(img=[_squeezed(lines[i]) for i in batch], return_word_box=False))
        read |= dict(zip(batch, zip(answer.txts, answer.scores, strict=True), strict=True))
    texts, scores = zip(*(read[i] for i in range(len(lines))), strict=True)
    output: Any = TextRecOutput
    return output(imgs=list(lines), txts=texts, scores=scores, word_results=(None,) * len(lines))


def batches(widths: Sequence[float], narrowest: int) -> Iterator[list[int]]:
    """The indices of lines of these widths (pixels), in batches for the recognizer, which pads them to the widest.

    Lines of like width come together. A batch has at most MOST_AT_ONCE lines and, padded, WIDTH_AT_ONCE pixels.
    """
    batch: list[int] = []
    for i in np.argsort(np.array(widths), kind="stable").tolist():
        if len(batch) == MOST_AT_ONCE or (len(batch) + 1) * max(widths[i], narrowest) > WIDTH_AT_ONCE:
            if batch:
                yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _width(line: Pixels) -> float:
    """The width of a line's input in pixels."""
    return float(min(LINE_HEIGHT * line.shape[1] / line.shape[0], WIDEST))


def _squeezed(line: Pixels) -> Pixels:
    """A line that is at most WIDEST at the input's height."""
    if LINE_HEIGHT * line.shape[1] <= WIDEST * line.shape[0]:
        return line
    squeezed: Any = cv2.resize(line, (WIDEST, LINE_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(squeezed, np.uint8)
