"""An image on its way through the vision group: the answers of the stages so far, and the record made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from models.base import Failure, Pair, Segment
from models.crops import crop_box, crop_segment, encode_mask
from models.evidence_filter import text_judged
from strata.core import Caption, EvidenceSettings, LayerSpec, Mask, ObjectMask, Record, Usage, kept


class Asked(NamedTuple):
    """A stage's answers for one image: an answer or a Failure for each item, its share of the seconds, its usage."""

    answers: list[Any]
    seconds: float
    usage: Usage


@dataclass
class Observed:
    """The answers of the stages for one image so far, or its first failure. layered: the record with its layers."""

    record: Record
    image: Image.Image
    segments: list[Segment] = field(default_factory=list)
    crops: list[Image.Image] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    phrases: list[str] | None = None
    matches: list[float] | None = None
    failure: Failure | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layered = self.record

    def noted(self, name: str, said: Asked) -> list[Any] | None:
        """Note a stage's seconds and usage. Returns its answers; None if one failed: then the image has failed.

        The first failure of an image is the one that its row tells.
        """
        self.seconds[name] = self.seconds.get(name, 0.0) + said.seconds
        if said.usage != Usage():
            self.usage[name] = self.usage.get(name, Usage()) + said.usage
        failure = next((answer for answer in said.answers if isinstance(answer, Failure)), None)
        self.failure = self.failure or failure
        return said.answers if failure is None else None

    # one method for each kind of answer

    def take_layer(self, layer: LayerSpec, answers: list[Any]) -> None:
        """The entries of a layer that its stage made of the whole image; answers has one list."""
        (found,) = answers
        entries = [one if isinstance(one, layer.model) else layer.model(**vars(one)) for one in found]
        self._lay(layer.name, entries)

    def take_caption(self, answers: list[Any]) -> None:
        """The caption of the whole image; answers has one text."""
        self._lay("caption", Caption(text=answers[0]))

    def take_segments(self, answers: list[Any]) -> None:
        """The segments of the image; answers has one list."""
        (self.segments,) = answers

    def take_phrases(self, answers: list[Any]) -> None:
        """A phrase for each crop."""
        self.phrases = answers

    def take_matches(self, answers: list[Any]) -> None:
        """A probability for each pair that the matcher was asked about last."""
        self.matches = answers

    def _lay(self, name: str, value: Any) -> None:
        self.layered = self.layered.model_copy(update={name: value})

    # between two stages

    def cut_out(self) -> None:
        """Cut out each segment's crop, for captioner and matcher, and encode its mask, for the record."""
        self.crops = [crop_segment(self.image, segment) for segment in self.segments]
        self.masks = [encode_mask(segment.mask) for segment in self.segments]

    def build_objects(self) -> None:
        """Make the layer objects of segments, masks and phrases; without a captioner the phrases are null."""
        phrases: Sequence[str | None] = self.phrases or [None] * len(self.segments)
        found = zip(self.segments, self.masks, phrases, strict=True)
        objects = [
            ObjectMask(box=one.box, mask=mask, area=int(one.mask.sum()), phrase=phrase, score=one.score)
            for one, mask, phrase in found
        ]
        self._lay("objects", objects)

    def caption_and_regions(self) -> list[Pair]:
        """The matcher's first pairs: the caption with the image, and each kept region with its crop."""
        caption = self.layered.caption
        regions = [Pair(crop_box(self.image, region.box), region.phrase) for region in kept(self.layered.regions)]
        return [Pair(self.image, caption.text), *regions] if caption else regions

    def objects(self) -> list[Pair]:
        """The matcher's second pairs: each kept object that has a phrase with the crop that the captioner was given."""
        objects = zip(self.crops, self.layered.objects or (), strict=True)
        return [Pair(crop, thing.phrase) for crop, thing in objects if thing.kept and thing.phrase is not None]

    def finished(self, settings: EvidenceSettings) -> Record:
        """The record with all its layers; of an image that failed, a failed row without layers."""
        told = {"seconds": self.record.seconds | self.seconds, "usage": self.record.usage | self.usage}
        if self.failure is not None:
            record = self.record.model_copy(update=told)
            return record.failed(self.failure.stage, self.failure.error_type, self.failure.detail)
        return text_judged(self.layered.model_copy(update=told), settings)


def alive(seen: Sequence[Observed]) -> list[Observed]:
    """Those that have not failed."""
    return [item for item in seen if item.failure is None]
