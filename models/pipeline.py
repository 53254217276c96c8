"""The pipelines of the groups `vision` and `llm`: each runs its stages on one micro-batch of images.

The crops of all images of the micro-batch form one batch for the model, and the results are then assigned to their
images: there is never one model call per crop. Every stage is optional: the layer of a stage that the profile does not
name stays null, and what depends on it is skipped. A stage that takes whole images and makes a layer of its own needs
no code here: its `LayerSpec` in `strata.core.layers` names it.

Where the models leave the CPU idle (on a GPU or behind a server), work that waits for no other stage runs in threads in
parallel to them: the OCR on the CPU, the detector (a GPU runs its hundreds of small kernels between the segmenter's
large ones; alone, they would leave the GPU waiting for Python), and the cropping of objects.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from PIL import Image

from models.base import MatcherStage, Stage, StageUnavailable
from models.building import build_stage, build_stages, load_stages
from models.evidence.domains import warned
from models.evidence.filter import before_matching, objects_matched, regions_matched
from models.faults import trim_memory
from models.items import PLACEHOLDER_IMAGE, CaptionRequest, ComposeRequest, Pair, VerifyRequest
from models.notes import as_read
from models.observed import Observed, StageResults, not_failed, tell
from models.variants import closed_kinds, is_within, layered_variants
from models.variants.composed import MOST_TRANSLATED, finished, prompted, requests_of, translate, translation
from models.verifier.drafts import Draft, check_bound, compose, compose_again, longest_request, most_asked, verify
from models.working_size import reduced, restored
from models.writers import ComposerStage, WriterStage, write
from strata.core import LAYERS, LayerSpec, Profile, Record, Status, TextSettings, Usage
from strata.core.parameters import longest_filled
from strata.telemetry import carried

DESCRIPTION_ALONE = TextSettings()
PendingLayers = Mapping[str, "Future[list[StageResults]]"]  # results for whole images, by the layer's name


class VisionPipeline:
    """Computes the layers of images. stages: by name; by default those that the profile names are built."""

    def __init__(self, profile: Profile, stages: dict[str, Stage[Any, Any]] | None = None) -> None:
        self.evidence, self.profile = profile.evidence, profile
        self.stages = build_stages(profile, "vision") if stages is None else stages
        self.parallel = cpu_is_idle(profile, "vision")
        """Whether CPU work runs in threads in parallel to the models."""
        self.boxed = "segmenter" in self.stages and self.stages["segmenter"].boxed
        """Whether the segmenter makes masks of the kept regions, after they have been matched."""

    def load(self) -> None:
        """Load every stage and compute its probe. Raises the errors of `load_stages`."""
        load_stages(self.stages)

    def run(self, batch: Sequence[tuple[Record, Image.Image]]) -> list[Record]:
        """The records with their layers, in order. A record becomes a failed row if a stage failed on its image.

        Images are upright RGB; very large ones may have been shrunk (`models.working_size`). Raises StageUnavailable,
        StageUnfit and StageBroken.
        """
        sizes = [(record.width or image.width, record.height or image.height) for record, image in batch]
        images = [Observed(*reduced(*one), full=size) for one, size in zip(batch, sizes, strict=True)]
        with ThreadPoolExecutor(len(LAYERS) + 1, thread_name_prefix="parallel") as threads:
            submit = threads.submit if self.parallel else _run_now
            # start all stages that take the whole image and make a layer of their own: they wait for no other stage
            run_layer = carried(self._run_layer)
            pending = {one.name: submit(run_layer, one, images) for one in self._whole_image_layers()}
            # find the masks; the objects are cropped on the CPU while the captioner runs on the whole images
            if not self.boxed:
                self._run_on_each(images, "segmenter", lambda item: [item.image], Observed.set_segments)
            cropping = submit(_crop_objects, images)
            self._run_on_each(images, "captioner", lambda item: [CaptionRequest(item.image)], Observed.set_caption)
            # the matcher judges regions: wait here for the layers that it needs
            _set_layers(images, pending, matched=True)
            # caption each crop, and build the objects from masks and phrases
            cropping.result()
            self._run_on_each(images, "captioner", _crop_requests, Observed.set_phrases, tolerant=True)
            self._build_objects(images)
            # match regions before objects: an object that repeats a kept region is dropped without a model call
            self._match(images, Observed.caption_and_regions, regions_matched, "region")
            if self.boxed:
                # a mask of a region needs no judgment of its own
                self._run_on_each(images, "segmenter", Observed.kept_regions, Observed.set_region_masks)
            else:
                self._match(images, Observed.objects, objects_matched, "object")
            # no stage needs the remaining layers (such as text), so they are waited for last
            _set_layers(images, pending, matched=False)
        pairs = zip(images, sizes, strict=True)
        records = [restored(item.finished(self.evidence), item.image.size, size) for item, size in pairs]
        # what the models say of pictures that they do not know comes with a warning
        known = [(item.image, self.profile.name, self.profile.domain) for item in images]
        records = [warned(record, *of_image) for record, of_image in zip(records, known, strict=True)]
        _release(self.stages)
        return records

    def bound(self, record: Record, texts: TextSettings = DESCRIPTION_ALONE) -> dict[str, tuple[Usage, Usage]]:
        """Upper bounds on the usage per image of each stage that calls a server: with one try, with all retries."""
        captioner, segmenter = self.stages.get("captioner"), self.stages.get("segmenter")
        if captioner is None:
            return {}
        # one request for the whole image, and at most one for each mask that the segmenter may return
        scene = captioner.bound(CaptionRequest(PLACEHOLDER_IMAGE))
        crop = captioner.bound(CaptionRequest(PLACEHOLDER_IMAGE, "crop"))
        crops: int = segmenter.parameters.max_masks if segmenter and not self.boxed else 0  # type: ignore[attr-defined]  # all have it
        return {"captioner": (scene[0] + crop[0] * crops, scene[1] + crop[1] * crops)}

    def _whole_image_layers(self) -> list[LayerSpec]:
        return [layer for layer in LAYERS.values() if layer.whole_image and layer.stage in self.stages]

    def _run_layer(self, layer: LayerSpec, images: Sequence[Observed]) -> list[StageResults]:
        """Run a layer's stage on all images, on its own CUDA stream: its kernels run between those of other models."""
        with _own_stream():
            return self._run_stage(str(layer.stage), [[item.image] for item in images])

    def _build_objects(self, images: Sequence[Observed]) -> None:
        """Build the layer `objects`, and drop the entries that the filter can drop without the matcher."""
        for item in not_failed(images):
            if "segmenter" in self.stages and not self.boxed:
                item.build_objects()
            item.layered = before_matching(item.layered, self.evidence)

    def _run_on_each(
        self,
        images: Sequence[Observed],
        name: str,
        items_of: Callable[[Observed], Sequence[Any]],
        set_results: Callable[[Observed, list[Any]], None],
        tolerant: bool = False,
    ) -> None:
        """Run a stage, if the profile has it, on the items of all images that have not failed; store its results."""
        if name not in self.stages:
            return
        batch = not_failed(images)
        for item, results in zip(batch, self._run_stage(name, [items_of(item) for item in batch]), strict=True):
            succeeded = item.add_results(name, results, tolerant=tolerant)
            if succeeded is not None:
                set_results(item, succeeded)
        tell(lambda: [item.so_far() for item in not_failed(images)])

    def _match(
        self,
        images: Sequence[Observed],
        pairs_of: Callable[[Observed], Sequence[Pair]],
        filter_matched: Callable[..., Record],
        kind: Literal["region", "object"],
    ) -> None:
        """Match some entries of all images with their crops, and filter them; without a matcher by their scores.

        The second matcher is asked about what the first one keeps, if the profile has a threshold for it.
        """
        self._run_on_each(images, "matcher", pairs_of, Observed.set_matches, tolerant=True)
        least = getattr(self.evidence, kind)
        if getattr(self.evidence, f"second_{kind}") is not None:
            self._run_on_each(
                images,
                "second_matcher",
                lambda item: item.passed(pairs_of(item), least),
                Observed.set_second,
                tolerant=True,
            )
        for item in not_failed(images):
            item.layered = filter_matched(item.layered, item.matches, self.evidence, item.second)
            item.second = None  # the next kind of entries has opinions of its own
        tell(lambda: [item.so_far() for item in not_failed(images)])

    def _run_stage(self, name: str, items: Sequence[Sequence[Any]]) -> list[StageResults]:
        """Run one stage on the items of several images; for each image its results, its seconds and its usage."""
        # one batch of all items; every item is charged the same share of the time
        started = time.perf_counter()
        results = iter(_results(self.stages[name], [item for of_image in items for item in of_image]))
        seconds_per_item = (time.perf_counter() - started) / max(1, sum(map(len, items)))
        # divide results and usage by image again; a stage without a server reports no usage
        usage = iter(self.stages[name].usage)
        return [
            StageResults(
                [next(results) for _ in of_image],
                seconds_per_item * len(of_image),
                sum(itertools.islice(usage, len(of_image)), Usage()),
            )
            for of_image in items
        ]


class LlmPipeline:
    """Writes the descriptions and variants of records from their layers. Without a composer there is no description."""

    def __init__(self, profile: Profile) -> None:
        self.stages = build_stages(profile, "llm")
        # the verifier may ask a stage of the group before, which this process then loads too
        self._asked = profile.second_opinion
        if self._asked is not None:
            self.stages[self._asked] = build_stage(self._asked, profile.stages[self._asked])
        self._absent = functools.cache(functools.partial(closed_kinds, profile))

    def load(self) -> None:
        """Load every stage and compute its probe. Raises the errors of `load_stages`."""
        load_stages(self.stages)

    def run(
        self,
        batch: Sequence[ComposeRequest],
        texts: TextSettings = DESCRIPTION_ALONE,
    ) -> list[Record]:
        """The records with their descriptions and what `texts` asks for, in order.

        A request has the image if a stage of the group uses it, and the sample's metadata if the job's prompt names
        some of it. Raises StageUnavailable, StageUnfit and StageBroken.
        """
        requests = [prompted(request, texts.prompt) for request in batch]
        if "composer" not in self.stages:
            return [as_read(self._varied(request.record, texts)) for request in requests]
        try:
            composed = self._composed(requests, texts)
        except StageUnavailable as error:
            # what the other stages were paid for is used in the next attempt
            error.kept = {name: stage.keep() for name, stage in self.stages.items() if name != error.stage}
            raise
        records = [as_read(self._varied(record, texts)) for record in composed]
        tell(lambda: records)
        _release(self.stages)
        return records

    def _composed(self, requests: Sequence[ComposeRequest], texts: TextSettings) -> list[Record]:
        """The records with the texts that the composer writes. The texts of all records are one call of each stage."""
        composer = self._composer
        of_records = [[Draft(one) for one in requests_of(request, texts)] for request in requests]
        drafts = list(itertools.chain.from_iterable(of_records))
        compose(composer, drafts)
        # cut what the layers do not support; where nothing is left, compose once more
        if verifier := self.stages.get("verifier"):
            # texts that belong to other images of the micro-batch are nobody's
            check_bound(drafts)
            matcher = self._second_opinion
            verify(verifier, drafts, matcher=matcher)
            compose_again(composer, verifier, [draft for draft in drafts if draft.nothing_left], matcher)
        language = texts.language or composer.language
        if language != composer.language:
            translate(composer, drafts, language)
        return [finished(own, language) for own in of_records]

    @property
    def _second_opinion(self) -> MatcherStage | None:
        return self.stages.get(self._asked) if self._asked else None

    @property
    def _composer(self) -> ComposerStage:
        return self.stages["composer"]  # type: ignore[return-value]

    def _varied(self, record: Record, texts: TextSettings) -> Record:
        """The record with the variants that follow from its layers, after those of the composer, if it succeeded."""
        names = texts.variants or []
        if not names or record.status is not Status.SUCCEEDED:
            return record
        absent = self._absent() if "questions" in names and is_within(record) else ()
        return record.model_copy(
            update={"variants": [*(record.variants or ()), *layered_variants(record, names, absent)]}
        )

    def bound(self, record: Record, texts: TextSettings = DESCRIPTION_ALONE) -> dict[str, tuple[Usage, Usage]]:
        """Upper bounds on the usage per image of each stage that calls a server: with one try, with all retries."""
        if "composer" not in self.stages:
            return {}
        composer, once, most = self._composer, Usage(), Usage()
        verifier, checked = self.stages.get("verifier"), (Usage(), Usage())
        opinion = most_asked(self._second_opinion) if self._second_opinion is not None else (Usage(), Usage())
        prompt = longest_filled(texts.prompt) if texts.prompt else ""
        for request in requests_of(ComposeRequest(record, PLACEHOLDER_IMAGE, prompt=prompt), texts):
            parts = [composer.bound(request)]
            if texts.language not in (None, composer.language):
                parts.append(composer.bound(translation(request, "x" * MOST_TRANSLATED, str(texts.language))))
            once, most = sum((one for one, _ in parts), once), sum((all_ for _, all_ in parts), most)
            if verifier is None:
                continue
            own = verifier.bound(VerifyRequest(record, "", PLACEHOLDER_IMAGE))
            # of a text that is written once more, both are asked about
            both = (own[1] + opinion[1]) * (1 + composer.heeds_errors)
            checked = checked[0] + own[0] + opinion[0], checked[1] + both
            if composer.heeds_errors:
                # a text of which nothing is left is written once more
                most += composer.bound(longest_request(request))[1]
        return {"composer": (once, most)} | ({"verifier": checked} if checked[1] != Usage() else {})


def cpu_is_idle(profile: Profile, group: str) -> bool:
    """Whether a group's models leave the CPU idle, because they run on a GPU or on a server.

    Where the models run on the CPU, other threads would compete with them for cores and caches (3 to 5 % slower).
    """
    return _on_gpu() or bool(profile.paid(group))


def _on_gpu() -> bool:
    """Whether models of this process run on a GPU. Stages that ask servers need no torch: it is not imported here."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()


def _own_stream() -> AbstractContextManager[None]:
    """A CUDA stream of high priority, if models run on a GPU."""
    if not _on_gpu():
        return nullcontext()
    from models.devices import side_stream

    return side_stream(urgent=True)


def _results(stage: Stage[Any, Any], items: Sequence[Any]) -> list[Any]:
    """A stage's results for items; texts have passed the guards."""
    return write(stage, items) if isinstance(stage, WriterStage) else stage.run(items)


def _run_now(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """`Executor.submit` without a thread: the work runs before the call returns, and its errors are raised here."""
    done: Future[Any] = Future()
    done.set_result(work(*arguments))
    return done


def _release(stages: Mapping[str, Stage[Any, Any]]) -> None:
    """Let the stages drop the answers that they keep for a retry of the micro-batch: it is complete. Free memory."""
    for stage in stages.values():
        stage.release()
    trim_memory()


def _set_layers(images: Sequence[Observed], pending: PendingLayers, matched: bool) -> None:
    """Wait for layers of whole images and store them in the records: those that the matcher judges, or the others."""
    for name, future in pending.items():
        layer = LAYERS[name]
        if layer.matched is not matched:
            continue
        for item, results in zip(images, future.result(), strict=True):
            succeeded = item.add_results(str(layer.stage), results)
            if succeeded is not None:
                item.set_entries(layer, succeeded)
        tell(lambda: [item.so_far() for item in not_failed(images)])


def _crop_requests(item: Observed) -> list[CaptionRequest]:
    return [CaptionRequest(crop, "crop", item.image) for crop in item.crops]


def _crop_objects(images: Sequence[Observed]) -> None:
    for item in images:
        item.crop_objects()
