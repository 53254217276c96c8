"""Samples that training tests read: squares of one colour.

This module imports no model's package, so that the worker processes of a DataLoader start quickly.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from typing import Any

from PIL import Image

from strata.data import Sample
from strata.data.mixtures import Mixture, Share
from strata.data.sources.missing_files import Missing
from strata.data.sources.samples import RawSample, SampleError

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "purple")


class Squares:
    """Images of one colour, with the colour's name as text. asked: with a question; broken: these cannot be read."""

    def __init__(self, count: int, asked: bool = False, broken: Collection[int] = ()) -> None:
        self.count, self.asked, self.broken = count, asked, broken
        self.identity = f"squares/{count}/{asked}"

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        """One image per number."""
        return [self._sample(number) for number in numbers]

    def _sample(self, number: int) -> RawSample:
        if number in self.broken:
            raise self.explain(number, "broken")
        colour, buffer = COLOURS[number % len(COLOURS)], io.BytesIO()
        Image.new("RGB", (40, 40), colour).save(buffer, "PNG")
        text = f"A {colour} square, number {number}."
        return RawSample(f"{number:04d}", (buffer.getvalue(),), ["Which colour?", colour] if self.asked else [text])

    def missing(self) -> Missing:
        """Return that nothing is missing: no file is needed."""
        return Missing([])

    def problems(self) -> tuple[int, str]:
        """Return (0, ""): every sample can be used."""
        return 0, ""

    def explain(self, number: int, reason: str) -> SampleError:
        """Name the number."""
        return SampleError(f"{number}: {reason}", f"{number:04d}")


def tiny_mixture(captions: int = 20, questions: int = 10, broken: Collection[int] = ()) -> Mixture:
    """A mixture of captions and questions. broken: captions that cannot be read."""
    shares = [
        Share("captions", "caption", Squares(captions, broken=broken), captions, "Describe the image."),
        Share("questions", "vqa", Squares(questions, asked=True), questions),
    ]
    return Mixture([share for share in shares if share.count])


def keys_and_lengths(samples: Sequence[Sample]) -> Any:
    """The keys and lengths of a batch's samples."""
    return [(sample.key, len(sample.conversation[-1]["content"])) for sample in samples]
