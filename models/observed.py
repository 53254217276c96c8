"""The state of one image in the vision pipeline: the stages' results so far, and the record built from them.

A worker can watch the layers of a micro-batch while its stages run (`watched`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from PIL import Image

from models.crops import crop_box, crop_segment, encode_mask
from models.evidence.filter import text_judged, without_repeats
from models.evidence.weight import weighed
from models.items import BoxedImage, Failure, Pair, Segment
from models.verifier.captions import without_false_claims
from models.working_size import restored
from strata.core import Caption, EvidenceSettings, LayerSpec, Mask, ObjectMask, Record, Usage, kept

Watcher = Callable[[Sequence[Record]], None]
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within the block the pipelines of this thread give the watcher their records so far, after each stage."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def tell(records: Callable[[], Iterable[Record]]) -> None:
    """Give the watcher the records so far; they are made only if there is one."""
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher(list(records()))


class StageResults(NamedTuple):
    """A stage's results for one image: a result or a Failure for each item, the image's seconds, and its usage."""

    results: list[Any]
    seconds: float
    usage: Usage


@dataclass
class Observed:
    """The stages' results for one image so far, or its first failure.

    segments, crops, masks and phrases: one entry per object, in the segmenter's order. matches: of the matcher's last
    run. second: those of the second matcher for the same pairs; second_asked: the indices of those that it was asked
    about. layered: the record with the layers that are complete so far. full: width and height of the whole image.
    """

    record: Record
    image: Image.Image
    segments: list[Segment] = field(default_factory=list)
    crops: list[Image.Image] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    phrases: list[str | Failure] | None = None
    matches: list[float | Failure | None] | None = None
    second_asked: list[int] = field(default_factory=list)
    second: list[float | Failure | None] | None = None
    failure: Failure | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    full: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.layered = self.record

    def add_results(self, stage: str, results: StageResults, tolerant: bool = False) -> list[Any] | None:
        """Add a stage's seconds and usage to the image's. Returns the results, or None if one is a Failure.

        An image with a Failure has failed; its row gives the first one. tolerant: the items are parts of the image, and
        a Failure costs its part alone, unless it is transient: then the row is computed again later.
        """
        # a stage may run twice on an image: the captioner on the whole image and on its crops
        self.seconds[stage] = self.seconds.get(stage, 0.0) + results.seconds
        if results.usage != Usage():
            self.usage[stage] = self.usage.get(stage, Usage()) + results.usage
        # a failed layer fails the image: a record with some layers incomplete would be taken for complete. An entry
        # whose crop has failed says so itself.
        failure = next((result for result in results.results if _fails_image(result, tolerant)), None)
        self.failure = self.failure or failure
        return results.results if failure is None else None

    # one setter for each kind of result

    def set_entries(self, layer: LayerSpec, results: list[Any]) -> None:
        """Set the entries of a layer that its stage found in the whole image. results: one list."""
        (found,) = results
        # built-in stages return dataclasses of models.items with the fields of the layer's model
        entries = [one if isinstance(one, layer.model) else layer.model(**vars(one)) for one in found]
        self._set_layer(layer.name, entries)

    def set_caption(self, results: list[Any]) -> None:
        """Set the caption of the whole image. results: one text."""
        self._set_layer("caption", Caption(text=results[0]))

    def set_segments(self, results: list[Any]) -> None:
        """Set the segments of the image. results: one list."""
        (self.segments,) = results

    def set_phrases(self, results: list[Any]) -> None:
        """Set the phrases. results: one for each crop; a Failure leaves the object without a phrase."""
        self.phrases = results

    def set_matches(self, results: list[Any]) -> None:
        """Set the matches. results: one for each pair of the matcher's last run."""
        self.matches = results

    def passed(self, pairs: Sequence[Pair], least: float) -> list[Pair]:
        """The pairs that the second matcher is asked about: of entries, not of the caption, that the first one keeps.

        pairs: those of the matcher's last run; least: its threshold.
        """
        judged = zip(pairs, self.matches or (), strict=True)
        self.second_asked = [
            index
            for index, (pair, match) in enumerate(judged)
            if pair.crop is not self.image and (match is None or (not isinstance(match, Failure) and match >= least))
        ]
        return [pairs[index] for index in self.second_asked]

    def set_second(self, results: list[Any]) -> None:
        """Set the second opinions: one for each pair of the matcher's last run, None where it was not asked."""
        found = dict(zip(self.second_asked, results, strict=True))
        self.second = [found.get(index) for index in range(len(self.matches or ()))]

    def _set_layer(self, name: str, value: Any) -> None:
        self.layered = self.layered.model_copy(update={name: value})

    # steps between two stages

    def crop_objects(self) -> None:
        """Crop each segment, for captioner and matcher, and encode its mask, for the record."""
        self.crops = [crop_segment(self.image, segment) for segment in self.segments]
        self.masks = [encode_mask(segment.mask) for segment in self.segments]

    def build_objects(self) -> None:
        """Build the layer `objects` from segments, masks and phrases; without a captioner the phrases are null."""
        phrases: Sequence[str | Failure | None] = self.phrases or [None] * len(self.segments)
        objects = []
        for one, mask, phrase in zip(self.segments, self.masks, phrases, strict=True):
            told = {"kept": False, "reason": phrase.reason} if isinstance(phrase, Failure) else {"phrase": phrase}
            objects.append(ObjectMask(box=one.box, mask=mask, area=int(one.mask.sum()), score=one.score, **told))
        self._set_layer("objects", objects)

    def kept_regions(self) -> list[BoxedImage]:
        """The item of a segmenter that makes masks of boxes: those of the kept regions; none without any."""
        boxes = tuple(region.box for region in kept(self.layered.regions))
        return [BoxedImage(self.image, boxes)] if boxes else []

    def set_region_masks(self, results: list[Any]) -> None:
        """Set the layer `objects` from the masks of the kept regions, with their phrases and probabilities.

        results: one list with a Segment or None for each of them; empty without regions.
        """
        segments: list[Segment | None] = results[0] if results else []
        objects = []
        for region, one in zip(kept(self.layered.regions), segments, strict=True):
            if one is not None:
                told = {"phrase": region.phrase, "match": region.match, "score": one.score}
                objects.append(ObjectMask(box=one.box, mask=encode_mask(one.mask), area=int(one.mask.sum()), **told))
        self._set_layer("objects", objects)

    def caption_and_regions(self) -> list[Pair]:
        """The matcher's first pairs: the caption with the image, and each kept region with its crop."""
        caption = self.layered.caption
        regions = [Pair(crop_box(self.image, region.box), region.phrase) for region in kept(self.layered.regions)]
        return [Pair(self.image, caption.text), *regions] if caption else regions

    def objects(self) -> list[Pair]:
        """The matcher's second pairs: each kept object that has a phrase, with the crop that was captioned."""
        objects = zip(self.crops, self.layered.objects or (), strict=True)
        return [Pair(crop, thing.phrase) for crop, thing in objects if thing.kept and thing.phrase is not None]

    def so_far(self) -> Record:
        """The record with the layers that are complete so far, in pixels of the whole image."""
        return restored(self.layered, self.image.size, self.full or self.image.size)

    def finished(self, settings: EvidenceSettings) -> Record:
        """The record with all its layers, or a failed row without layers if the image has failed."""
        costs = {"seconds": self.record.seconds | self.seconds, "usage": self.record.usage | self.usage}
        # a failed row keeps seconds and usage: the tokens of its requests were paid
        if self.failure is not None:
            record = self.record.model_copy(update=costs)
            return self.failure.row_of(record)
        record = text_judged(self.layered.model_copy(update=costs), settings)
        if settings.weight is not None:
            record = without_repeats(weighed(record, settings.weight, settings.weights), settings)
        return without_false_claims(record) if settings.caption_claims else record


def _fails_image(result: Any, tolerant: bool) -> bool:
    return isinstance(result, Failure) and (result.transient or not tolerant)


def not_failed(images: Sequence[Observed]) -> list[Observed]:
    """The images on which no stage has failed so far."""
    return [item for item in images if item.failure is None]
