"""The group `llm` with a verifier: what becomes of the composer's texts, in records, costs and bounds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from bench.planting import record_of, scene_of, true_text
from models.base import StageBroken
from models.guards import Asked
from models.items import ComposeRequest, Failure
from models.pipeline import LlmPipeline
from models.verifier.binding import binding_of
from models.verifier.entities import facts_of
from models.writers import ComposerStage
from strata.core import NOTHING_FOUND, Profile, Record, StageSettings, Usage, records_to_table, table_to_records
from tests.models.verifier.records import record

PARK = record(("a dog", (10, 10, 60, 60)), ("a red car", (120, 120, 190, 180)))
BUILTIN = StageSettings(backend="rules", model="builtin:rules", revision="1")


class Scripted(ComposerStage):
    """Writes texts in turn, each with the same usage; free: whether it heeds errors."""

    name = "composer"

    def __init__(self, texts: Sequence[str], free: bool = True) -> None:
        super().__init__(StageSettings(backend="scripted", model="builtin:x", revision="1"))
        self.texts, self.free, self.requests = list(texts), free, list[ComposeRequest]()

    @property
    def heeds_errors(self) -> bool:
        return self.free

    def load(self) -> None:
        """Nothing to load."""

    def asked(self, item: ComposeRequest) -> Asked | None:
        return Asked() if item.record.regions else None

    def bound(self, item: ComposeRequest) -> tuple[Usage, Usage]:
        prompt = 100 + sum(len(error.encode()) for error in item.errors)
        return Usage(prompt_tokens=prompt, requests=1), Usage(prompt_tokens=2 * prompt, requests=2)

    def run(self, batch: Sequence[ComposeRequest]) -> list[str | Failure]:
        self.requests += batch
        self.usage = [Usage(prompt_tokens=10, requests=1) for _ in batch]
        return [self.texts.pop(0) for _ in batch]

    def compute(self, batch: Any) -> list[str]:
        raise NotImplementedError


def run(composer: ComposerStage, *records: Record) -> list[Record]:
    pipeline = LlmPipeline(Profile(name="x", stages={"verifier": BUILTIN}))
    pipeline.stages = {"composer": composer, **pipeline.stages}
    pipeline.stages["verifier"].load()
    return pipeline.run([ComposeRequest(one) for one in records])


def test_what_is_false_is_cut_and_the_original_kept() -> None:
    text = "A dog is at the top left. A cat is at the right. The car is red."
    (made,) = run(Scripted([text]), PARK)
    assert made.description and made.verification
    assert made.description.text == "A dog is at the top left. The car is red."
    assert [one.evidence for one in made.description.sentences] == [["regions/0"], ["regions/1"]]
    assert made.verification.text == text and made.verification.origin == "composed"
    assert [one.reason for one in made.verification.sentences] == [None, "unsupported_object", None]
    assert {"composer", "verifier"} <= made.seconds.keys() and made.usage["composer"].requests == 1
    # it goes through a part
    (back,) = table_to_records(records_to_table([made]))
    assert back.verification == made.verification


def test_nothing_left_is_composed_once_more_with_what_was_wrong() -> None:
    composer = Scripted(["A cat is asleep.", "A dog is at the top left.", "A dog and a red car."])
    first, second = run(composer, PARK, PARK.model_copy(update={"key": "1"}))
    assert [request.errors for request in composer.requests] == [(), (), ("A cat",)]
    assert first.description and first.description.text == "A dog and a red car."
    assert first.verification and first.verification.origin == "composed_again"
    assert first.usage["composer"].requests == 2 and second.usage["composer"].requests == 1


@pytest.mark.parametrize("free", [True, False])
def test_nothing_left_twice_gives_a_plain_composition(free: bool) -> None:
    composer = Scripted(["A cat is asleep.", "I'm sorry, I cannot do that.", "A zebra sleeps."], free)
    (made,) = run(composer, PARK)
    assert made.description and made.verification and made.verification.origin == "layers"
    told = "A red car is at the bottom right of the picture. A dog is at the top left of the picture."
    assert made.description.text == told
    assert made.verification.text == "A cat is asleep."
    assert len(composer.requests) == (3 if free else 1)  # the refusal was asked for again


def test_a_record_without_notes_has_nothing_to_verify() -> None:
    (made,) = run(Scripted([""]), record())
    assert made.verification is None and made.description and made.description.text == ""
    (told,) = run(Scripted([NOTHING_FOUND]), PARK)
    assert told.description and told.description.text == NOTHING_FOUND


def test_the_bound_of_a_composer_has_the_second_text() -> None:
    pipeline = LlmPipeline(Profile(name="x", stages={"verifier": BUILTIN}))
    pipeline.stages = {"composer": Scripted([]), **pipeline.stages}
    once, most = pipeline.bound(PARK)["composer"]
    assert once == Usage(prompt_tokens=100, requests=1)
    assert most.requests == 4 and most.prompt_tokens >= 2 * 100 + 2 * (100 + 1000)
    pipeline.stages["composer"] = Scripted([], free=False)
    assert pipeline.bound(PARK)["composer"][1].requests == 2


def test_swapped_texts_are_refused_every_time_and_true_ones_never() -> None:
    dice = random.Random(3)
    scenes = [scene_of(number) for number in range(48)]
    records = [record_of(scene) for scene in scenes]
    facts = [facts_of(one, trust_caption=False) for one in records]
    texts = [true_text(scene, dice) for scene in scenes]
    # of each batch the texts moved by one place, by half of the batch, or reversed
    caught = alarms = 0
    for trial in range(100):
        batch = dice.sample(range(48), 8)
        wrong = [batch[1:] + batch[:1], batch[4:] + batch[:4], batch[::-1]][trial % 3]
        caught += binding_of([texts[i] for i in wrong], [facts[i] for i in batch]).swapped
        if trial < 40:
            alarms += binding_of([texts[i] for i in batch], [facts[i] for i in batch]).swapped
    assert (caught, alarms) == (100, 0)
    # small batches, and batches of which half were swapped
    for size, moved, trials in ((2, 2, 100), (3, 3, 20), (16, 8, 3)):
        for _ in range(trials):
            batch = dice.sample(range(48), size)
            wrong = [*batch[1:moved], batch[0], *batch[moved:]]
            assert binding_of([texts[i] for i in wrong], [facts[i] for i in batch]).swapped, batch
            assert binding_of([texts[i] for i in batch], [facts[i] for i in batch]).gain == 0, batch
    # in the pipeline the process is broken, and no record comes out
    with pytest.raises(StageBroken, match="fit another image of the batch better than their own"):
        run(Scripted([*texts[1:8], texts[0]]), *records[:8])
    assert len(run(Scripted(texts[:8]), *records[:8])) == 8
