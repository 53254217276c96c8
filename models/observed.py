"""An image on its way through the vision group: what each stage said of it, and the record that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from models.base import Detection, Failure, Pair, ReadLine, Segment
from models.crops import crop_box, crop_segment, encode_mask
from models.evidence_filter import before_matching, text_judged
from strata.core.profiles import EvidenceSettings
from strata.core.records import Caption, Mask, ObjectMask, Record, Region, TextLine
from strata.core.usage import Usage


class Asked(NamedTuple):
    """What a stage said of one image: an answer or a Failure for each item, its share of the seconds, its usage."""

    answers: list[Any]
    seconds: float
    usage: Usage


@dataclass
class Observed:
    """What each stage has said of an image so far, or its first failure. layered: the record with its layers."""

    record: Record
    image: Image.Image
    caption: str = ""
    detections: list[Detection] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    crops: list[Image.Image] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    lines: list[ReadLine] = field(default_factory=list)
    matches: list[float] = field(default_factory=list)
    failure: Failure | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    layered: Record = field(init=False)

    def put(self, name: str, attribute: str, said: Asked) -> None:
        """Note what a stage said; the first failure of an image stays its failure."""
        self.seconds[name] = self.seconds.get(name, 0.0) + said.seconds
        if said.usage != Usage():
            self.usage[name] = self.usage.get(name, Usage()) + said.usage
        failure = next((answer for answer in said.answers if isinstance(answer, Failure)), None)
        self.failure = self.failure or failure
        if failure is None:
            # a stage asked once about the whole image answers for the image, else entry by entry
            setattr(self, attribute, said.answers if attribute in ("phrases", "matches") else said.answers[0])

    def cut_out(self) -> None:
        """Each segment's crop, which captioner and matcher see, and its encoded mask, which the record gets."""
        self.crops = [crop_segment(self.image, segment) for segment in self.segments]
        self.masks = [encode_mask(segment.mask) for segment in self.segments]

    def lay(self, settings: EvidenceSettings) -> None:
        """Make the record with caption, regions and objects, and drop what needs no matcher to be dropped."""
        objects = zip(self.segments, self.masks, self.phrases, strict=True)
        layers = {
            "caption": Caption(text=self.caption),
            "regions": [Region(box=found.box, phrase=found.phrase, score=found.score) for found in self.detections],
            "objects": [
                ObjectMask(box=found.box, mask=mask, area=int(found.mask.sum()), phrase=phrase, score=found.score)
                for found, mask, phrase in objects
            ],
        }
        self.layered = before_matching(self.record.model_copy(update=layers), settings)

    def caption_and_regions(self) -> list[Pair]:
        """What the matcher is asked first: the caption, and each kept region."""
        kept = [region for region in self.layered.regions or () if region.kept]
        regions = [Pair(crop_box(self.image, region.box), region.phrase) for region in kept]
        return [Pair(self.image, self.caption), *regions]

    def objects(self) -> list[Pair]:
        """What the matcher is asked then: each kept object, on the crop that the captioner saw."""
        objects = zip(self.crops, self.layered.objects or (), strict=True)
        return [Pair(crop, thing.phrase) for crop, thing in objects if thing.kept]

    def finished(self, settings: EvidenceSettings) -> Record:
        """The record with its text; of a failed image a failed one without layers."""
        told = {"seconds": self.record.seconds | self.seconds, "usage": self.record.usage | self.usage}
        if self.failure is not None:
            record = self.record.model_copy(update=told)
            return record.failed(self.failure.stage, self.failure.error_type, self.failure.detail)
        text = [TextLine(box=line.box, text=line.text, score=line.score) for line in self.lines]
        return text_judged(self.layered.model_copy(update=told | {"text": text}), settings)


def alive(seen: Sequence[Observed]) -> list[Observed]:
    """Those that have not failed."""
    return [item for item in seen if item.failure is None]
