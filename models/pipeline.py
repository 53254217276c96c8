"""The pipelines of the groups `vision` and `llm`: stages on one micro-batch, crops of all its images flattened.

The crops of every image go into one batch for the model and the answers are put back after: never a model call a
crop. Where models leave the CPU idle, what waits for no other stage goes on in threads beside them: ocr; the cutting
out of objects; and the detector, whose hundreds of small steps a GPU does between the segmenter's large ones, while
alone they would keep it waiting for Python. The verifier's place is between the composer's text and the description's
sentences.
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
from models.evidence_filter import objects_matched, regions_matched
from models.observed import Asked, Observed, alive
from strata.core.profiles import EvidenceSettings, Profile
from strata.core.records import Record
from strata.core.usage import Usage


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
        whole = [[item.image] for item in seen]
        with ThreadPoolExecutor(3, thread_name_prefix="beside") as threads:
            submit = threads.submit if self.beside else _at_once
            reading = submit(self._ask, "ocr", whole)
            finding = submit(self._ask_beside, "detector", whole)
            self._each(seen, "segmenter", "segments", lambda item: [item.image])
            cutting = submit(_cut_out, seen)
            self._each(seen, "captioner", "caption", lambda item: [CaptionRequest(item.image)])
            _put(seen, "detector", "detections", finding.result())
            cutting.result()
            self._each(seen, "captioner", "phrases", lambda item: [CaptionRequest(crop, "crop") for crop in item.crops])
            for item in alive(seen):
                item.lay(self.evidence)
            # regions first: an object that repeats a kept one need not be asked about
            self._match(seen, Observed.caption_and_regions, regions_matched)
            self._match(seen, Observed.objects, objects_matched)
        _put(seen, "ocr", "lines", reading.result())
        _release(self.stages)
        return [item.finished(self.evidence) for item in seen]

    def bound(self, record: Record) -> dict[str, tuple[Usage, Usage]]:
        """The most that each stage which asks a server can use for an image: with one try, and with all."""
        captioner, segmenter = self.stages["captioner"], self.stages["segmenter"]
        scene = captioner.bound(CaptionRequest(ANY_IMAGE))
        crop = captioner.bound(CaptionRequest(ANY_IMAGE, "crop"))
        crops: int = segmenter.parameters.max_masks  # type: ignore[attr-defined]  # every segmenter has it
        return {"captioner": (scene[0] + crop[0] * crops, scene[1] + crop[1] * crops)}

    def _each(
        self, seen: list[Observed], name: str, attribute: str, items_of: Callable[[Observed], Sequence[Any]]
    ) -> None:
        """One stage over the items of all images that have not failed; answers go back to their image."""
        asked = alive(seen)
        _put(asked, name, attribute, self._ask(name, [items_of(item) for item in asked]))

    def _match(
        self,
        seen: list[Observed],
        pairs_of: Callable[[Observed], Sequence[Pair]],
        judged: Callable[[Record, Sequence[float], EvidenceSettings], Record],
    ) -> None:
        """The matcher over some entries of all images, which are then kept or dropped."""
        self._each(seen, "matcher", "matches", pairs_of)
        for item in alive(seen):
            item.layered = judged(item.layered, item.matches, self.evidence)

    def _ask_beside(self, name: str, asked: Sequence[Sequence[Any]]) -> list[Asked]:
        """`_ask` on a stream of its own: a GPU takes its steps between those of the models."""
        with beside(urgent=True):
            return self._ask(name, asked)

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
    """Layers to a description."""

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
        composer = self.stages["composer"]
        requests = [ComposeRequest(*one) if isinstance(one, tuple) else ComposeRequest(one) for one in batch]
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
        return {"composer": self.stages["composer"].bound(ComposeRequest(record, ANY_IMAGE))}

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

    Where they fill the cores themselves, a thread beside them only takes their turns and their caches.
    """
    return best_device().type == "cuda" or bool(profile.paid(group))


def _at_once(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """`Executor.submit`, done before it returns; what the work raises is raised here."""
    done: Future[Any] = Future()
    done.set_result(work(*arguments))
    return done


def _release(stages: Mapping[str, Stage[Any, Any]]) -> None:
    """Tell the stages that the micro-batch has gone out."""
    for stage in stages.values():
        stage.release()


def _put(asked: Sequence[Observed], name: str, attribute: str, said: Sequence[Asked]) -> None:
    for item, own in zip(asked, said, strict=True):
        item.put(name, attribute, own)


def _cut_out(seen: Sequence[Observed]) -> None:
    for item in seen:
        item.cut_out()
