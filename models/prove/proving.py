"""The proof of a profile: each of its stages on pictures whose truth is known, then all of them together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from models.base import Stage, WeightsMissing
from models.building import build_stage, load_stages
from models.faults import free_memory, reason_of
from models.items import ComposeRequest, Failure
from models.pipeline import LlmPipeline, VisionPipeline
from models.prove.batches import batch_check
from models.prove.checks import failed, passed, share_at_least, share_at_most
from models.prove.machine import Meter, device_name, machine, versions
from models.prove.pictures import FILES, Picture, World, load_pictures, named, worlds_of
from models.prove.published import published_checks
from models.prove.questions import Questions
from models.prove.stages import questions_of
from models.weights.cache import check, fetched_for
from models.writers import WriterStage, write
from strata.core import (
    FEATURES,
    GROUPS,
    LAYERS,
    STAGES_OF,
    Check,
    ImageReference,
    Profile,
    Proof,
    Record,
    StageFigures,
    Status,
    kept,
)
from strata.core.proofs import IMAGES

PIPELINE = "pipeline"
SECONDS_A_DAY = 86_400
ALONE = 3  # items of a stage that are also asked alone
TOLD = 0.67  # share of the pictures of which the whole pipeline must tell something true
INVENTED = 0.1  # greatest share of the entries that the whole pipeline keeps and that are wrong
Report = Callable[[str], None]
Stages = dict[str, Stage[Any, Any]]


@dataclass(frozen=True)
class Options:
    """What a proof may be told. images: a folder with the pictures of published numbers; world: that of all stages.

    seconds: how long the speed is measured, at least; 0: only the pictures of the proof are computed.
    """

    images: Path | None = None
    world: World | None = None
    seconds: float = 30.0


def prove(profile: Profile, options: Options | None = None, report: Report = lambda line: None) -> Proof:
    """Prove a profile on this machine. report: is told what happens. Raises WeightsMissing if weights are not here."""
    options = options or Options()
    _require_weights(profile)
    worlds = worlds_of(profile, options.world)
    proving = _Proving(profile, options, worlds, report)
    # a group at a time: their models may not fit into memory together
    records = proving.vision()
    proving.llm(records)
    proving.features()
    checks = proving.checks
    rate = 1 / proving.seconds_per_image if proving.seconds_per_image else None
    return Proof(
        profile=profile.name,
        passed=all(one.passed for one in checks),
        time=datetime.now(UTC).replace(microsecond=0),
        fingerprints={group: profile.fingerprint(group) for group in GROUPS},
        device=device_name(),
        machine=machine(),
        versions=versions(),
        checks=checks,
        stages=proving.figures,
        images_per_second=rate and round(rate, 3),
        days={count: round(count / rate / SECONDS_A_DAY, 2) for count in IMAGES} if rate else {},
    )


def prove_stage(
    name: str,
    stage: Stage[Any, Any],
    profile: Profile,
    world: World,
    report: Report = lambda line: None,
    pictures: Sequence[Picture] | None = None,
) -> list[Check]:
    """The checks of a loaded stage; none for a stage without questions. pictures: by default all of the world."""
    with_image = bool(profile.stages[name].parameters.get("with_image")) if name in profile.stages else False
    shown = load_pictures(world) if pictures is None else pictures
    boxed, rated = getattr(stage, "boxed", False), getattr(stage, "rated", ())
    asked = questions_of(name, shown, world, profile.evidence, with_image, boxed, rated)
    if asked is None:
        return []
    report(f"{name}: {len(asked.items)} questions on {world}")
    try:
        return _answered(name, stage, asked, report)
    except Exception as error:  # the stage itself has failed: that is the result of its proof
        return [failed(name, "answers", reason_of(error))]


def _answered(name: str, stage: Stage[Any, Any], asked: Questions, report: Report) -> list[Check]:
    together = _results(stage, asked.items)
    faults = [
        f"{where}: {result.error_type}: {result.detail}" if isinstance(result, Failure) else None
        for where, result in zip(asked.names, together, strict=True)
    ]
    checks = [share_at_least(name, "answers", faults, 1.0)]
    # a failed item counts as an empty answer
    checks += asked.judge([_empty(name) if isinstance(result, Failure) else result for result in together])
    # requests to a server are separate ones already
    if not stage.settings.paid:
        some = range(0, len(asked.items), -(-len(asked.items) // ALONE))
        report(f"{name}: {len(some)} of the questions one by one")
        alone = [_results(stage, [asked.items[i]])[0] for i in some]
        checks.append(batch_check(name, [together[i] for i in some], alone, [asked.names[i] for i in some]))
    return checks


def _results(stage: Stage[Any, Any], items: Sequence[Any]) -> list[Any]:
    """The results of items as a record has them: texts have passed the guards."""
    results = write(stage, items) if isinstance(stage, WriterStage) else stage.run(items)
    stage.release()
    return results


def _empty(stage: str) -> Any:
    empty = {"matcher": 0.0, "second_matcher": 0.0, "captioner": "", "composer": ""}
    return None if stage in STAGES_OF[FEATURES] else empty.get(stage, [])


class _Proving:
    """The proof in progress: its checks and figures, in the order of the stages."""

    def __init__(self, profile: Profile, options: Options, worlds: Mapping[str, World], report: Report) -> None:
        self._profile, self._options, self._worlds, self._report = profile, options, worlds, report
        self.checks: list[Check] = []
        self.figures: dict[str, StageFigures] = {}
        self.seconds_per_image = 0.0

    def vision(self) -> list[Record]:
        """Prove the stages of images, then all of them together; the records, none if a stage cannot be loaded."""
        stages = self._stages("vision")
        if stages is None:
            return []
        pipeline = VisionPipeline(self._profile, stages)
        seen = [world for name, world in self._worlds.items() if name in stages and name != "ocr"]
        pictures = load_pictures("drawings" if "drawings" in seen else "photographs")
        self._report(f"all stages of images on {len(pictures)} pictures")
        batch = [(_record(picture), picture.image) for picture in pictures]
        records = self._together("vision", pipeline.run, batch, pictures, stages)
        del pipeline
        stages.clear()
        free_memory()
        return records

    def llm(self, records: list[Record]) -> None:
        """Prove the composer, then with the records of the stages of images."""
        stages = self._stages("llm")
        if not stages or not records:
            return
        # the stage of images that the verifier asks for a second opinion was proven with them
        asked = self._profile.second_opinion
        if asked and (again := self._loaded(asked)) is not None:
            stages[asked] = again
        pipeline = LlmPipeline(self._profile)
        pipeline.stages = stages
        pictures = {picture.name: picture for world in FILES for picture in load_pictures(world)}
        shown = [pictures[record.key] for record in records]
        sees = self._profile.sees_images("llm")
        batch = [
            ComposeRequest(record, picture.image if sees else None)
            for record, picture in zip(records, shown, strict=True)
        ]
        self._together("llm", pipeline.run, batch, shown, stages)
        stages.clear()
        free_memory()

    def features(self) -> None:
        """Prove the stages of features, each for itself: no description needs them."""
        stages = self._stages(FEATURES)
        if stages is not None:
            stages.clear()
        free_memory()

    def _stages(self, group: str) -> Stages | None:
        """The loaded stages of a group that the profile names, each proven; None if one cannot be loaded."""
        stages: Stages = {}
        names = [name for name in STAGES_OF[group] if name in self._profile.stages]
        for name in names:
            stage = self._loaded(name)
            if stage is None:
                continue
            stages[name] = stage
            meter = Meter()
            self.checks += prove_stage(name, stage, self._profile, self._worlds[name], self._report)
            self.checks += published_checks(name, self._profile.stages[name].model, stage, self._options.images)
            figures = self.figures[name]
            memory = figures.memory_bytes + meter.peak
            self.figures[name] = figures.model_copy(update={"memory_bytes": memory})
        return stages if len(stages) == len(names) else None

    def _loaded(self, name: str) -> Stage[Any, Any] | None:
        """A stage with its weights loaded and its probe computed; None, and a failed check, if that fails."""
        self._report(f"{name}: loading {self._profile.stages[name].model}")
        meter, started = Meter(), time.perf_counter()
        try:
            stage = build_stage(name, self._profile.stages[name])
            with fetched_for(self._profile.name):
                load_stages({name: stage})
        except Exception as error:  # weights that do not fit, memory, code that cannot be imported: the check says why
            self.checks.append(failed(name, "loads", reason_of(error)))
            return None
        self.checks.append(passed(name, "loads"))
        self.figures[name] = StageFigures(load_seconds=round(time.perf_counter() - started, 2), memory_bytes=meter.peak)
        return stage

    def _together(
        self,
        group: str,
        run: Callable[[Sequence[Any]], list[Record]],
        batch: Sequence[Any],
        pictures: Sequence[Picture],
        stages: Stages,
    ) -> list[Record]:
        """Run a group's pipeline on pictures, judge the records, and measure its speed. Returns the records."""
        try:
            records, rate = _measured(run, batch, self._profile.micro_batch, self._options.seconds, self._report)
        except Exception as error:  # a stage has failed: no images can be described
            self.checks.append(failed(PIPELINE, group, reason_of(error)))
            return []
        self.checks += _judge_records(group, records, pictures)
        self.seconds_per_image += rate
        for name in stages:
            if spent := fmean(record.seconds.get(name, 0.0) for record in records):
                figures = self.figures[name].model_copy(update={"images_per_second": round(1 / spent, 3)})
                self.figures[name] = figures
        return records


def _measured(
    run: Callable[[Sequence[Any]], list[Record]], batch: Sequence[Any], size: int, seconds: float, report: Report
) -> tuple[list[Record], float]:
    """The records of a batch, and the seconds that an image takes in batches of `size`, measured for some seconds."""
    started = time.perf_counter()
    records = run(batch)
    spent = (time.perf_counter() - started) / len(batch)
    count = min(int(seconds / max(spent, 1e-6)), 8 * size)
    # longer than the batch itself: measure again, warm and in whole micro-batches
    if count > len(batch):
        report(f"measuring the speed on {count} images")
        repeated = [batch[i % len(batch)] for i in range(count)]
        started = time.perf_counter()
        for first in range(0, count, size):
            run(repeated[first : first + size])
        spent = (time.perf_counter() - started) / count
    return records, spent


def _judge_records(group: str, records: Sequence[Record], pictures: Sequence[Picture]) -> list[Check]:
    """Whether every image has a row, and whether what the rows tell is true."""
    ended = [
        None if record.status is Status.SUCCEEDED else f"{record.key}: {record.failure and record.failure.detail}"
        for record in records
    ]
    told = [(picture, _told(group, record)) for picture, record in zip(pictures, records, strict=True)]
    silent = [
        None
        if any(named(text, thing.words) for thing in picture.things for text in texts)
        else f"{picture.name}: {texts}"
        for picture, texts in told
        if picture.things
    ]
    invented = [
        f"{picture.name}: {', '.join(words)} in {text!r}" if (words := named(text, picture.absent)) else None
        for picture, texts in told
        for text in texts
    ]
    name = "descriptions" if group == "llm" else "layers"
    return [
        share_at_least(PIPELINE, f"{name} succeed", ended, 1.0),
        share_at_least(PIPELINE, f"{name} tell", silent, TOLD),
        share_at_most(PIPELINE, f"{name} invent", invented, INVENTED),
    ]


def _told(group: str, record: Record) -> list[str]:
    """What a record tells of its picture: its description, or the words of the kept entries of its other layers."""
    if group == "llm":
        return [record.description.text] if record.description else []
    texts = []
    for name, layer in LAYERS.items():
        value = getattr(record, name)
        if layer.stage is None or layer.stage == "composer" or layer.drawing == "quote" or value is None:
            continue
        entries = kept(value) if isinstance(value, list) else [value]
        texts += [text for entry in entries if (text := layer.words_of(entry))]
    return texts


def _record(picture: Picture) -> Record:
    return Record(
        key=picture.name,
        image=ImageReference(uri=picture.name, size=0),
        width=picture.image.width,
        height=picture.image.height,
    )


def _require_weights(profile: Profile) -> None:
    """Raise WeightsMissing if the weights of a stage are not on this machine."""
    for name, settings in profile.stages.items():
        found = check(settings, thorough=False)
        if found.state == "missing":
            raise WeightsMissing(f"{name}: {found.detail}; get them with `strata models fetch {profile.name}`")
