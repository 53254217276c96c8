"""The pipelines of the groups `vision` and `llm`: stages on one micro-batch, crops of all its images flattened.

The crops of every image go into one batch for the model and the answers are put back after: never a model call a
crop. Every stage is optional: the layer of a stage that the profile does not name stays null, and what depends on it
is skipped. A stage that takes whole images and makes a layer of its own needs nothing here: `strata.core.layers`
names it.

Where models leave the CPU idle, what waits for no other stage goes on in threads beside them: the stages of whole
images (ocr on the CPU, and the detector, whose hundreds of small steps a GPU does between the segmenter's large ones,
while alone they would keep it waiting for Python), and the cutting out of objects. The verifier will stand between the
composer's text and the description's sentences.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from PIL import Image

from models.base import ANY_IMAGE, CaptionRequest, ComposeRequest, Failure, Pair, Stage
from models.building import build_stages
from models.devices import beside, best_device
from models.evidence import describe
from models.evidence_filter import before_matching, objects_matched, regions_matched
from models.observed import Asked, Observed, alive
from strata.core import LAYERS, EvidenceSettings, LayerSpec, Profile, Record, Usage

Looks = Mapping[str, "Future[list[Asked]]"]  # the answers about whole images, by layer


class VisionPipeline:
    """Images to layers. stages: by name, those that the profile names if not given."""

    def __init__(self, profile: Profile, stages: dict[str, Stage[Any, Any]] | None = None) -> None:
        self.evidence = profile.evidence
        self.stages = build_stages(profile, "vision") if stages is None else stages
        self.beside = models_wait(profile, "vision")
        """Whether the CPU's work goes on in threads beside the models."""

    def load(self) -> None:
        """Load every stage. Raises WeightsMissing."""
        for stage in self.stages.values():
            stage.load()

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """Records with their layers, in order; a record whose image failed a stage is a failed one.

        Images are upright RGB. Raises StageUnavailable.
        """
        seen = [Observed(record, image) for record, image in batch]
        with ThreadPoolExecutor(len(LAYERS) + 1, thread_name_prefix="beside") as threads:
            submit = threads.submit if self.beside else _at_once
            # begin all stages that take the whole image and make a layer of their own
            looks = {layer.name: submit(self._look, layer, seen) for layer in self._whole_image_layers()}
            # find masks; their crops are cut out while the captioner is asked about the whole images
            self._each(seen, "segmenter", lambda item: [item.image], Observed.take_segments)
            cutting = submit(_cut_out, seen)
            self._each(seen, "captioner", lambda item: [CaptionRequest(item.image)], Observed.take_caption)
            # from here on the layers are needed that the matcher judges
            _put_layers(seen, looks, matched=True)
            # ask for a phrase for each crop, and make objects of masks and phrases
            cutting.result()
            self._each(seen, "captioner", _crops, Observed.take_phrases)
            self._build_objects(seen)
            # match regions first: an object that repeats a kept region need not be asked about
            self._match(seen, Observed.caption_and_regions, regions_matched)
            self._match(seen, Observed.objects, objects_matched)
            # the other layers may come last: no stage waits for them
            _put_layers(seen, looks, matched=False)
        _release(self.stages)
        return [item.finished(self.evidence) for item in seen]

    def bound(self, record: Record) -> dict[str, tuple[Usage, Usage]]:
        """The most that each stage which asks a server can use for an image: with one try, and with all."""
        captioner, segmenter = self.stages.get("captioner"), self.stages.get("segmenter")
        if captioner is None:
            return {}
        scene = captioner.bound(CaptionRequest(ANY_IMAGE))
        crop = captioner.bound(CaptionRequest(ANY_IMAGE, "crop"))
        crops: int = segmenter.parameters.max_masks if segmenter else 0  # type: ignore[attr-defined]  # all have it
        return {"captioner": (scene[0] + crop[0] * crops, scene[1] + crop[1] * crops)}

    def _whole_image_layers(self) -> list[LayerSpec]:
        return [layer for layer in LAYERS.values() if layer.whole_image and layer.stage in self.stages]

    def _look(self, layer: LayerSpec, seen: Sequence[Observed]) -> list[Asked]:
        """Ask a layer's stage about all images, on a stream of its own: a GPU takes its steps between other models'."""
        with beside(urgent=True):
            return self._ask(str(layer.stage), [[item.image] for item in seen])

    def _build_objects(self, seen: Sequence[Observed]) -> None:
        """Make the layer objects, and drop entries that can be dropped without the matcher."""
        for item in alive(seen):
            if "segmenter" in self.stages:
                item.build_objects()
            item.layered = before_matching(item.layered, self.evidence)

    def _each(
        self,
        seen: Sequence[Observed],
        name: str,
        items_of: Callable[[Observed], Sequence[Any]],
        take: Callable[[Observed, list[Any]], None],
    ) -> None:
        """Ask a stage, if there is one, about the items of all images that have not failed; put its answers back."""
        if name not in self.stages:
            return
        asked = alive(seen)
        for item, said in zip(asked, self._ask(name, [items_of(item) for item in asked]), strict=True):
            answers = item.noted(name, said)
            if answers is not None:
                take(item, answers)

    def _match(
        self,
        seen: Sequence[Observed],
        pairs_of: Callable[[Observed], Sequence[Pair]],
        judged: Callable[[Record, Sequence[float] | None, EvidenceSettings], Record],
    ) -> None:
        """Ask the matcher about some entries of all images, and keep or drop them; without one their scores decide."""
        self._each(seen, "matcher", pairs_of, Observed.take_matches)
        for item in alive(seen):
            item.layered = judged(item.layered, item.matches, self.evidence)

    def _ask(self, name: str, asked: Sequence[Sequence[Any]]) -> list[Asked]:
        """One stage over the items of several images: for each image its answers, and its share of the seconds."""
        started = time.perf_counter()
        answers = iter(self.stages[name].run([entry for entries in asked for entry in entries]))
        share = (time.perf_counter() - started) / max(1, sum(map(len, asked)))
        usage = iter(self.stages[name].usage)
        return [
            Asked(
                [next(answers) for _ in entries],
                share * len(entries),
                sum(itertools.islice(usage, len(entries)), Usage()),
            )
            for entries in asked
        ]


class LlmPipeline:
    """Layers to a description. Without a composer the records stay as they are."""

    def __init__(self, profile: Profile) -> None:
        self.stages = build_stages(profile, "llm")

    def load(self) -> None:
        """Load every stage. Raises WeightsMissing."""
        for stage in self.stages.values():
            stage.load()

    def run(self, batch: Sequence[Record | tuple[Record, Image.Image]]) -> list[Record]:
        """Records with their descriptions, in order; each comes with its image where the composer looks at it.

        Raises StageUnavailable.
        """
        requests = [ComposeRequest(*one) if isinstance(one, tuple) else ComposeRequest(one) for one in batch]
        composer = self.stages.get("composer")
        if composer is None:
            return [request.record for request in requests]
        started = time.perf_counter()
        texts = composer.run(requests)
        share = (time.perf_counter() - started) / max(1, len(requests))
        _release(self.stages)
        usage = iter(composer.usage)
        return [
            self._record(request.record, text, share, next(usage, None))
            for request, text in zip(requests, texts, strict=True)
        ]

    def bound(self, record: Record) -> dict[str, tuple[Usage, Usage]]:
        """The most that each stage which asks a server can use for an image: with one try, and with all."""
        return {name: stage.bound(ComposeRequest(record, ANY_IMAGE)) for name, stage in self.stages.items()}

    def _record(self, record: Record, text: str | Failure, seconds: float, usage: Usage | None) -> Record:
        told: dict[str, Any] = {"seconds": record.seconds | {"composer": seconds}}
        if usage is not None:
            told["usage"] = record.usage | {"composer": usage}
        record = record.model_copy(update=told)
        if isinstance(text, Failure):
            return record.failed(text.stage, text.error_type, text.detail)
        return record.model_copy(update={"description": describe(text, record)})


def models_wait(profile: Profile, group: str) -> bool:
    """Whether a group's models leave the CPU idle: they run on a GPU, or on a server.

    Where they use the cores themselves, a thread beside them would only compete for cores and caches.
    """
    return best_device().type == "cuda" or bool(profile.paid(group))


def _at_once(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """`Executor.submit` without a thread: the work is done before it returns, and what it raises is raised here."""
    done: Future[Any] = Future()
    done.set_result(work(*arguments))
    return done


def _release(stages: Mapping[str, Stage[Any, Any]]) -> None:
    """Tell the stages that the answers of the micro-batch are used."""
    for stage in stages.values():
        stage.release()


def _put_layers(seen: Sequence[Observed], looks: Looks, matched: bool) -> None:
    """Put the layers of whole images into the records, those that the matcher judges or the others."""
    for name, look in looks.items():
        layer = LAYERS[name]
        if layer.matched is not matched:
            continue
        for item, said in zip(seen, look.result(), strict=True):
            answers = item.noted(str(layer.stage), said)
            if answers is not None:
                item.take_layer(layer, answers)


def _crops(item: Observed) -> list[CaptionRequest]:
    return [CaptionRequest(crop, "crop") for crop in item.crops]


def _cut_out(seen: Sequence[Observed]) -> None:
    for item in seen:
        item.cut_out()
