"""The second opinion on claims: a matcher on the crops of their entries, and the colours of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.base import Stage, StageBroken, StageUnavailable
from models.crops import encode_mask
from models.items import ComposeRequest, CropQuestion, Failure, Pair
from models.pipeline import LlmPipeline
from models.verifier.images.opinions import MOST_CROPS, MOST_PAIRS, best_scores, pairs_of
from strata.core import Description, ObjectMask, Profile, Record, StageSettings, Usage, VerifierParameters
from tests.models.verifier.records import record
from tests.models.verifier.test_pipeline import Scripted

CAR, DOG = (120.0, 120.0, 190.0, 180.0), (10.0, 10.0, 60.0, 60.0)
PARK = record(("a dog", DOG), ("a car", CAR))
MATCHER = StageSettings(backend="open_clip", model="bundled:matcher", revision="1")


def picture(size: int = 200) -> Image.Image:
    """A blue car and a brown dog, as blocks of colour, at any size."""
    image = Image.new("RGB", (200, 200), (235, 235, 235))
    ImageDraw.Draw(image).rectangle(CAR, (30, 60, 220))
    ImageDraw.Draw(image).rectangle(DOG, (110, 60, 20))
    return image.resize((size, size))


class Matching(Stage[Pair, Any]):
    """Gives each phrase the probability of a table, 0.9 by default; an error in its place fails that pair."""

    name = "matcher"

    def __init__(self, table: dict[str, Any], price: int = 0) -> None:
        super().__init__(MATCHER)
        self.table, self.price, self.batches = table, price, list[list[Pair]]()

    def load(self) -> None:
        """Nothing to load."""

    def bound(self, item: Pair) -> tuple[Usage, Usage]:
        return Usage(prompt_tokens=self.price, requests=1), Usage(prompt_tokens=3 * self.price, requests=3)

    def run(self, batch: Sequence[Pair]) -> list[Any]:
        self.batches.append(list(batch))
        if self.price:
            self.usage = [Usage(prompt_tokens=self.price, requests=1) for _ in batch]
        return super().run(batch)

    def compute(self, batch: Sequence[Pair]) -> list[Any]:
        found = [self.table.get(pair.phrase, 0.9) for pair in batch]
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found


def profile(**parameters: object) -> Profile:
    chosen = parameters or {"second_opinion": "matcher", "match": 0.5}
    verifier = StageSettings(backend="rules", model="builtin:rules", revision="1", parameters=chosen)
    return Profile(name="x", stages={"verifier": verifier, "matcher": MATCHER})


def run(
    text: str | Sequence[str], matcher: Matching, *records: Record, image: Image.Image | None = None, **parameters: Any
) -> list[Record]:
    pipeline = LlmPipeline(profile(**parameters))
    texts = [text] if isinstance(text, str) else text
    pipeline.stages |= {"composer": Scripted(texts, free=False), "matcher": matcher}
    pipeline.stages["verifier"].load()
    shown = image or picture()
    return pipeline.run([ComposeRequest(one, shown) for one in records or (PARK,)])


def left(made: Record) -> str:
    assert isinstance(made.description, Description)
    return made.description.text


def test_a_claim_below_the_threshold_is_cut_and_its_score_kept() -> None:
    matcher = Matching({"a dog": 0.2})
    (made,) = run("A dog is at the top left. A car is at the bottom right.", matcher)
    assert left(made) == "A car is at the bottom right."
    assert made.verification
    first, second = made.verification.sentences
    assert (first.reason, first.kept) == ("low_match", None)
    assert [(one.kind, one.supported, one.score) for one in first.claims] == [
        ("thing", False, 0.2),
        ("relation", True, None),
    ]
    assert first.claims[0].evidence == ["regions/0"] and second.claims[0].score == 0.9
    # each thing was shown as the crop of its entry
    assert [(pair.phrase, pair.crop.size) for pair in matcher.batches[0]] == [("a dog", (50, 50)), ("a car", (70, 60))]


def test_all_claims_of_all_records_are_one_batch_and_each_question_is_asked_once() -> None:
    matcher = Matching({})
    text = "A dog is at the top left. The dog is near a car. The dog and the car are here."
    run([text, text], matcher, PARK, PARK.model_copy(update={"key": "1"}))
    (batch,) = matcher.batches
    assert [pair.phrase for pair in batch] == ["a dog", "a car"] * 2


def test_an_attribute_is_asked_with_its_thing_and_cut_alone() -> None:
    red = record(("a red car", CAR))
    matcher = Matching({"a red car": 0.1})
    (made,) = run("A car that is red is at the bottom right.", matcher, red)
    assert [pair.phrase for pair in matcher.batches[0]] == ["a car", "a red car"]
    assert left(made) == "A car is at the bottom right."


def test_what_no_entry_names_is_asked_of_the_whole_image() -> None:
    park = record(("a dog", DOG), caption="a dog on a lawn with a ball")
    matcher = Matching({"a ball": 0.1, "It all seems calm.": 0.3})
    (made,) = run("A dog is at the top left. A ball is here. It all seems calm.", matcher, park)
    assert [(pair.phrase, pair.crop.size) for pair in matcher.batches[0]] == [
        ("a dog", (50, 50)),
        ("a ball", (200, 200)),
        ("It all seems calm.", (200, 200)),
    ]
    assert left(made) == "A dog is at the top left."
    assert made.verification
    assert [one.reason for one in made.verification.sentences] == [None, "low_match", "low_match"]


def test_the_best_of_several_things_counts_and_the_image_may_be_smaller_than_the_record() -> None:
    class Dark(Matching):
        def compute(self, batch: Sequence[Pair]) -> list[Any]:
            return [0.9 if np.asarray(pair.crop).mean() < 100 else 0.1 for pair in batch]

    two = record(("a dog", CAR), ("a dog", DOG))
    matcher = Dark({})
    (made,) = run("A dog is here.", matcher, two, image=picture(100))
    assert [pair.crop.size for pair in matcher.batches[0]] == [(35, 30), (25, 25)]
    assert left(made) == "A dog is here."


def test_an_object_is_shown_as_its_mask() -> None:
    mask = np.zeros((200, 200), bool)
    mask[20:50, 20:50] = True
    thing = ObjectMask(box=DOG, mask=encode_mask(mask), area=900, phrase="a dog", score=0.9)
    matcher = Matching({})
    run("A dog is here.", matcher, record(("a car", CAR)).model_copy(update={"objects": [thing]}))
    ((pair,),) = matcher.batches
    assert pair.crop.getpixel((0, 0)) == (255, 255, 255) and pair.crop.getpixel((20, 20)) == (110, 60, 20)


@pytest.mark.parametrize("answer", [None, ValueError("no picture")])
def test_no_answer_and_a_failed_pair_leave_what_the_rules_say(answer: object) -> None:
    text = "A dog is at the top left. A cat is here. A car is at the bottom right."
    (made,) = run(text, Matching({"a dog": answer}))
    assert left(made) == "A dog is at the top left. A car is at the bottom right."
    assert made.failure is None and made.verification
    assert [one.claims[0].score for one in made.verification.sentences] == [None, None, 0.9]


def test_a_broken_or_absent_second_opinion_is_no_row_s_fault() -> None:
    with pytest.raises(StageUnavailable, match="away"):
        run("A dog is here.", Matching({"a dog": StageUnavailable("away")}))
    # nothing can be computed any more, not even the probe
    broken = Matching({"a dog": RuntimeError("x"), "a red square": RuntimeError("x")})
    with pytest.raises(StageBroken, match="its probe failed"):
        run("A dog is here.", broken)


def test_costs_of_a_paid_opinion_are_the_verifier_s_and_bounded() -> None:
    matcher = Matching({}, price=7)
    (made,) = run("A dog is near a car.", matcher)
    assert made.usage["verifier"] == Usage(prompt_tokens=14, requests=2)
    # bounds and prices
    paid = MATCHER.model_copy(
        update={
            "model": "server:http://x/v1",
            "parameters": {"price_per_million_prompt_tokens": 2.0, "price_per_million_completion_tokens": 1.0},
        }
    )
    chosen = profile()
    chosen = chosen.model_copy(update={"stages": {**chosen.stages, "matcher": paid}})
    assert chosen.paid("llm") == ["verifier"] and chosen.cost({"verifier": Usage(prompt_tokens=14)}).money == 28
    pipeline = LlmPipeline(profile())
    pipeline.stages |= {"composer": Scripted([]), "matcher": matcher}
    once, most = pipeline.bound(PARK)["verifier"]
    assert once == Usage(prompt_tokens=7 * 60, requests=60) and most.requests == 3 * 2 * 60


def test_a_long_text_is_not_asked_about_without_end() -> None:
    many = record(*(("a car", (20.0 * i, 20.0, 20.0 * i + 19, 39.0)) for i in range(9)))
    entries = tuple(f"regions/{i}" for i in range(9))
    questions = [CropQuestion(entries, f"a car {i}") for i in range(20)]
    pairs = pairs_of(questions, many, picture())
    assert len(pairs) == MOST_PAIRS == 60 and len({id(pair.crop) for _, pair in pairs}) == MOST_CROPS == 4
    # a question of which one crop has no answer has none
    asked = [
        (questions[0], 0.2),
        (questions[0], Failure("matcher", "x", "y")),
        (questions[1], 0.3),
        (questions[1], 0.4),
    ]
    assert best_scores(asked) == {questions[1]: 0.4}


def test_images_come_only_where_they_are_used() -> None:
    assert profile().sees_images("llm") and profile(colours=True).sees_images("llm")
    assert not profile(strict=True).sees_images("llm")
    for faulty in ({"match": 0.5}, {"second_opinion": "matcher"}):
        with pytest.raises(ValueError, match="no effect without each other"):
            VerifierParameters.model_validate(faulty)


@pytest.mark.parametrize(
    ("colour", "stays", "supported"),
    [
        ("blue", True, True),
        ("red", False, False),
        ("green", False, False),
        ("purple", True, None),
        ("beige", True, None),
    ],
)
def test_a_colour_that_no_entry_names_is_looked_for_in_the_pixels(
    colour: str, stays: bool, supported: bool | None
) -> None:
    matcher, text = Matching({}), f"A dog is at the top left. A {colour} car is at the bottom right."
    (made,) = run(text, matcher, colours=True)
    assert not matcher.batches and made.verification
    (claim,) = (one for one in made.verification.sentences[1].claims if one.kind == "attribute")
    assert claim.supported is supported and claim.reason == (None if stays else "wrong_attribute")
    assert left(made) == (text if stays else "A dog is at the top left.")
    # without the parameter, nobody judges it
    (blind,) = run(text, matcher, match=None)
    assert left(blind) == text


def test_an_entry_s_own_colour_is_believed_and_a_coloured_mix_tells_nothing() -> None:
    named = record(("a red car", CAR))
    (made,) = run("A red car is at the bottom right.", Matching({}), named, colours=True)
    assert left(made) == "A red car is at the bottom right."
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8))
    (mixed,) = run("A green car is at the bottom right.", Matching({}), image=noise, colours=True)
    assert left(mixed) == "A green car is at the bottom right."
