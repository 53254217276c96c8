"""Stages without models, one of each kind: what they say follows from the size of an image or from a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from PIL import Image

from models.base import DetectorStage, MatcherStage, OcrStage, SegmenterStage
from models.guards import Asked
from models.items import CaptionRequest, ComposeRequest, Detection, Pair, ReadLine, Segment
from models.writers import CaptionerStage, ComposerStage
from strata.core import SegmenterParameters, StageSettings


class FakeCaptioner(CaptionerStage):
    """Says how large an image is."""

    name: ClassVar[str] = "captioner"

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[CaptionRequest]) -> list[str]:
        return [f"{request.image.width} by {request.image.height} pixels" for request in batch]


class FakeDetector(DetectorStage):
    """Finds one region, the whole image."""

    name: ClassVar[str] = "detector"

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Detection]]:
        return [[Detection((0.0, 0.0, float(image.width), float(image.height)), "a picture", 1.0)] for image in batch]


class FakeSegmenter(SegmenterStage):
    """Finds no masks."""

    name: ClassVar[str] = "segmenter"

    def __init__(self, settings: StageSettings) -> None:
        super().__init__(settings)
        self.parameters = SegmenterParameters.model_validate(settings.parameters)

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[Segment]]:
        return [[] for _ in batch]


class FakeOcr(OcrStage):
    """Reads no lines."""

    name: ClassVar[str] = "ocr"

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[Image.Image]) -> list[list[ReadLine]]:
        return [[] for _ in batch]


class FakeMatcher(MatcherStage):
    """Calls every phrase true."""

    name: ClassVar[str] = "matcher"

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[Pair]) -> list[float | None]:
        return [1.0 for _ in batch]


class FakeComposer(ComposerStage):
    """Repeats the caption."""

    name: ClassVar[str] = "composer"

    def asked(self, item: ComposeRequest) -> Asked | None:
        return Asked() if item.record.caption else None

    def load(self) -> None:
        """Nothing to load."""

    def compute(self, batch: Sequence[ComposeRequest]) -> list[str]:
        return [request.record.caption.text if request.record.caption else "" for request in batch]
